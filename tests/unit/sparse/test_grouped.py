from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import billhook
from billhook.errors import InputError, PlanError
from billhook.graph import Plan, capture, make_plan
from billhook.graph.alive import enliven_
from billhook.graph.patterns import parse_pattern
from billhook.graph.slicing import named_tensors
from billhook.graph.structure import Structure, impose_, viewed
from billhook.sparse._grouped_layers import Arrangement, ChannelGather, GroupedLinear, grouped
from billhook.sparse._permuting import runs
from billhook.sparse.grouped import Folded, fold_pivots
from billhook.sparse.pivoting import random_partition
from tests.networks import NETWORKS, build

Blocks = Mapping[str, tuple[np.ndarray, np.ndarray]]


def pivoted(
    model: nn.Module, x: Tensor, blocks: int = 2, parts: Blocks | None = None
) -> tuple[nn.Module, Plan]:
    """Return a sparse network whose weights are all alive inside their blocks, and its plan.

    `parts` are blocks of rows and columns by tensor; without them, those that keep the most in all layers.
    """
    graph = capture(model, x)
    pattern = parse_pattern(f"block_diagonal:blocks={blocks}")
    structures = {}
    for layer in graph.weights:
        if pattern.refusal(layer.view, layer.groups) or (parts is not None and layer.tensor not in parts):
            continue
        weight = viewed(model.get_parameter(layer.tensor).detach(), transposed=layer.transposed)
        chosen = pattern.choose(weight, 0.5)
        if parts is not None:
            chosen = dict(zip(("row_block", "column_block"), parts[layer.tensor], strict=True))
        structures[layer.tensor] = Structure(pattern, layer.shape, chosen, layer.transposed)
    plan = make_plan(graph, {}).with_patterns(structures)
    network = billhook.apply(model, plan)
    tensors = dict(named_tensors(network))
    enliven_(tensors)
    impose_(tensors, plan.patterns)
    return network, plan


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max() / a.detach().abs().max())


@torch.no_grad()
def check(network: nn.Module, folded: Folded, x: Tensor, batches: tuple[int, ...] = (1, 3)) -> None:
    for batch in batches:
        y = torch.randn(batch, *x.shape[1:], generator=torch.Generator().manual_seed(batch))
        assert relative(network(y), folded.network(y)) < 1e-5


def gathers(network: nn.Module) -> int:
    return sum(isinstance(m, ChannelGather) for m in network.modules())


def expected_macs(model: nn.Module, x: Tensor, folded: Folded) -> int:
    """Return the multiply-adds when the folded layers, and only they, cost 1/blocks."""
    macs = {w.layer: w.macs for w in capture(model, x).weights}
    saved = [macs[f.layer] - macs[f.layer] // f.blocks for f in folded.layers]
    return billhook.cost(model, x).macs - sum(saved)


@pytest.mark.parametrize("blocks", [2, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_folded_network_computes_the_same_with_fewer_operations(name: str, blocks: int) -> None:
    model, x = build(name)
    network, plan = pivoted(model, x, blocks)
    before = {n: t.clone() for n, t in network.state_dict().items()}
    folded = fold_pivots(network, plan, x)
    check(network, folded, x)
    assert folded.layers
    assert {f"{f.layer}.weight" for f in folded.layers} | {n.split()[0] for n in folded.notes} == set(
        plan.patterns
    )
    assert all("different sizes" in n for n in folded.notes)  # three colours in, five classes out
    assert billhook.cost(folded.network, x).macs == expected_macs(model, x, folded)
    assert gathers(folded.network) == sum(f.before + f.after for f in folded.layers)
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    assert folded.network.training == network.training


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(12, 8), (12,)),
    "linear without bias": (lambda: nn.Linear(12, 8, bias=False), (12,)),
    "linear of tokens": (lambda: nn.Linear(12, 8), (5, 12)),
    "stride and padding": (lambda: nn.Conv2d(12, 8, 3, stride=2, padding=1), (12, 7, 6)),
    "dilated, reflected": (
        lambda: nn.Conv2d(12, 8, (3, 1), dilation=2, padding=(2, 1), padding_mode="reflect", bias=False),
        (12, 7, 6),
    ),
    "same": (lambda: nn.Conv2d(12, 8, 4, padding="same"), (12, 7, 6)),
    "one dimension": (lambda: nn.Conv1d(12, 8, 3, padding=1), (12, 9)),
    "three dimensions": (lambda: nn.Conv3d(12, 8, 2, stride=2), (12, 4, 4, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(12, 8, 3, stride=2, output_padding=1), (12, 4, 5)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("blocks", [2, 4])
def test_a_grouped_layer_between_gathers_is_the_masked_one(name: str, blocks: int) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer, x = make(), torch.randn(3, *shape)
    transposed = isinstance(layer, nn.ConvTranspose2d)
    rows, columns = random_partition(8, blocks, 1), random_partition(12, blocks, 2)
    mask = torch.from_numpy(rows[:, None] == columns[None, :])
    weight: Any = layer.weight
    with torch.no_grad():
        weight *= (mask.T if transposed else mask).reshape(*weight.shape[:2], *[1] * (weight.dim() - 2))
    expected = layer(x)
    parts = [np.stack([np.flatnonzero(p == b) for b in range(blocks)]) for p in (rows, columns)]
    fast = grouped(layer, Arrangement(*parts, before=True, after=True))
    assert relative(expected, fast(x)) < 1e-6
    assert sum(p.numel() for n, p in fast.named_parameters() if "weight" in n) == weight.numel() // blocks
    assert torch.equal(fast(x[:1]), fast(x)[:1]) or relative(fast(x)[:1], fast(x[:1])) < 1e-6


def contiguous(count: int, blocks: int) -> np.ndarray:
    return np.repeat(np.arange(blocks), count // blocks).astype(np.uint8)


def chain(widths: int = 16) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, widths, 3, padding=1), nn.BatchNorm2d(widths), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(widths, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 8, 1), nn.Flatten(), nn.Linear(8 * 16, 4),
    ).eval()  # fmt: skip


def drawn(count: int, blocks: int, seed: int) -> np.ndarray:
    return random_partition(count, blocks, seed).astype(np.uint8)


def test_equal_partitions_need_no_gather_at_all() -> None:
    model, x = chain(), torch.randn(2, 3, 8, 8)
    shared = drawn(24, 4, 3)
    relabelled = np.array([2, 0, 3, 1], np.uint8)[shared]  # the same blocks, counted differently
    network, plan = pivoted(model, x, 4, {
        "4.weight": (shared, drawn(16, 4, 4)),
        "7.weight": (drawn(8, 4, 5), relabelled),
    })  # fmt: skip
    folded = fold_pivots(network, plan, x)
    check(network, folded, x)
    assert folded.moved == gathers(folded.network) == 0
    assert [type(folded.network[i]) for i in (4, 7)] == [nn.Conv2d, nn.Conv2d]
    assert [folded.network[i].groups for i in (4, 7)] == [4, 4]
    assert set(folded.network.state_dict()) == set(network.state_dict())


def test_different_partitions_meet_in_one_gather_of_the_smaller_tensor() -> None:
    model, x = chain(), torch.randn(2, 3, 8, 8)
    network, plan = pivoted(model, x, 2, {
        "4.weight": (drawn(24, 2, 1), drawn(16, 2, 2)),
        "7.weight": (drawn(8, 2, 3), drawn(24, 2, 4)),
    })  # fmt: skip
    folded = fold_pivots(network, plan, x)
    check(network, folded, x)
    assert gathers(folded.network) == 1
    assert folded.moved == 2 * 24 * 4 * 4


def test_a_finer_partition_lies_inside_a_coarser_one() -> None:
    model, x = chain(), torch.randn(2, 3, 8, 8)
    fine = drawn(24, 4, 1)
    network, plan = pivoted(model, x, 4, {"4.weight": (fine, contiguous(16, 4))})
    coarse = parse_pattern("block_diagonal:blocks=2")
    parts = {"row_block": contiguous(8, 2), "column_block": fine // 2}
    plan = plan.with_patterns({"7.weight": Structure(coarse, (8, 24, 1, 1), parts)})
    impose_(dict(named_tensors(network)), plan.patterns)
    folded = fold_pivots(network, plan, x)
    check(network, folded, x)
    assert gathers(folded.network) == 0


def test_outputs_of_the_network_are_put_back_in_order() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1)), torch.randn(2, 4, 3, 3)
    rows = np.array([0, 1, 0, 1], np.uint8)
    network, plan = pivoted(model, x, 2, {"2.weight": (rows, np.arange(6, dtype=np.uint8) % 2)})
    folded = fold_pivots(network, plan, x)
    check(network, folded, x)
    (layer,) = folded.layers
    assert (layer.before, layer.after, layer.moved) == (False, True, 2 * 4 * 9)
    # A frozen order that is block by block already needs nothing.
    network, plan = pivoted(model, x, 2, {"2.weight": (np.sort(rows), np.arange(6, dtype=np.uint8) % 2)})
    assert gathers(fold_pivots(network, plan, x).network) == 0


class Halves(nn.Module):
    """Does different things to two halves of the same channels, so that they cannot change places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = torch.cat([x[:, :8].relu(), x[:, 8:].sigmoid()], 1)
        return self.last(x).mean((2, 3))


def test_channels_whose_order_matters_keep_it() -> None:
    torch.manual_seed(0)
    model, x = Halves().eval(), torch.randn(2, 3, 4, 4)
    network, plan = pivoted(
        model, x, 2, {"last.weight": (contiguous(8, 2), np.arange(16, dtype=np.uint8) % 2)}
    )
    folded = fold_pivots(network, plan, x)
    check(network, folded, x)
    assert gathers(folded.network) == 1
    assert folded.notes == ("the channels of 'first' keep their order: the network depends on it",)


class Asking(nn.Module):
    """Reads an attribute of a layer in forward."""

    def __init__(self, reads_weight: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.head, self.reads_weight = nn.Linear(8, 4), reads_weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu()) + self.second.out_features
        return self.head(x) + (self.first.weight.sum() if self.reads_weight else 0)


def test_a_layer_that_forward_looks_into_stays_under_its_mask() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8)
    mixed = np.arange(8, dtype=np.uint8) % 2
    parts = {
        "first.weight": (mixed, mixed),
        "second.weight": (mixed, drawn(8, 2, 7)),
    }
    for reads_weight in (False, True):
        network, plan = pivoted(Asking(reads_weight).eval(), x, 2, parts)
        folded = fold_pivots(network, plan, x)
        check(network, folded, x)
        left = {n.split()[0] for n in folded.notes if "stays dense" in n}
        assert ("first.weight" in left) == reads_weight
        assert "first" in {f.layer for f in folded.layers} or reads_weight


def test_layers_that_are_no_plain_ones_are_named() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8)
    shared = nn.Linear(8, 8)
    model = nn.Sequential(shared, nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).eval()
    model[4].weight = shared.weight
    model[2].register_forward_hook(lambda module, args, output: output + 1)
    half = contiguous(8, 2)
    network, plan = pivoted(model, x, 2, {"0.weight": (half, half), "2.weight": (half, half)})
    folded = fold_pivots(network, plan, x)
    check(network, folded, x)
    assert not folded.layers
    assert [n.partition(": ")[2] for n in folded.notes] == [
        "other modules than '0' read its tensors",
        "'2' has hooks",
    ]


def test_a_plan_without_pivots_and_a_network_without_them_are_errors() -> None:
    model, x = build("plain")
    network, plan = pivoted(model, x)
    with pytest.raises(InputError, match="nothing to fold"):
        fold_pivots(network, make_plan(capture(model, x), {}), x)
    with pytest.raises(InputError, match="'conv1\\.weight' has weights outside the blocks"):
        fold_pivots(model, plan, x)
    with pytest.raises(PlanError, match="which this network does not have"):
        fold_pivots(build("residual")[0], plan, x)
    with pytest.raises(PlanError, match="made for another network"):
        fold_pivots(nn.ModuleDict({"conv1": nn.Conv2d(3, 8, 3)}), plan, x)


def test_channels_may_have_left_before_and_the_plan_may_come_from_a_file(tmp_path: Path) -> None:
    model, x = build("residual")
    keep = np.ones(24, dtype=bool)
    keep[[1, 5, 6, 20]] = False
    pruned = make_plan(capture(model, x), {"inner1": keep})
    small = billhook.apply(model, pruned)
    _, patterns = pivoted(small, x)
    pruned.with_patterns(patterns.patterns).save(tmp_path / "plan.json")
    plan = Plan.load(tmp_path / "plan.json")
    network = billhook.apply(model, plan)
    folded = fold_pivots(network, plan, x)
    check(network, folded, x)
    assert {"inner1", "outer1"} <= {f.layer for f in folded.layers}
    assert billhook.cost(folded.network, x).macs == expected_macs(small, x, folded)


def test_blocks_from_a_hostile_plan_stay_under_their_mask() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval(), torch.randn(2, 8)
    empty, even = np.zeros(8, np.uint8), contiguous(8, 2)
    for rows, columns in ((empty, even), (even, empty), (empty, empty), (empty, 1 - empty)):
        network, plan = pivoted(model, x, 2, {"0.weight": (rows, columns)})
        folded = fold_pivots(network, plan, x)
        check(network, folded, x)
        assert not folded.layers
        assert "blocks of different sizes, 0 to 8" in folded.notes[0]


def test_folding_in_training_mode_keeps_it_and_gradients_flow() -> None:
    model, x = build("residual")
    network, plan = pivoted(model, x)
    folded = fold_pivots(network.train(), plan, x).network
    assert folded.training
    folded(x).sum().backward()
    assert all(p.grad is not None for p in folded.parameters())
    assert all(m.training for m in folded.modules())


def test_runs_are_blocks_in_one_piece() -> None:
    assert runs(np.array([2, 2, 0, 0, 1, 1]), 3) == [2, 0, 1]
    assert runs(np.array([0, 1, 0, 1]), 2) is None


def test_a_grouped_linear_layer_takes_any_leading_dimensions() -> None:
    layer = GroupedLinear(torch.randn(6, 2), torch.randn(6), 2)
    dense = torch.block_diag(layer.weight[:3], layer.weight[3:])
    for shape in ((4,), (0, 4), (3, 4), (2, 3, 5, 4)):
        x = torch.randn(shape)
        assert torch.allclose(layer(x), nn.functional.linear(x, dense, layer.bias), atol=1e-6)


@pytest.mark.parametrize("name", ["residual", "flatten"])
def test_the_folded_network_runs_in_onnxruntime(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model, x = build(name)
    network, plan = pivoted(model, x, 4)
    folded = fold_pivots(network, plan, x)
    made = billhook.export(folded.network, x, tmp_path / "net")
    assert made.manifest.parity is not None
    assert made.manifest.parity["max_rel_error"] < 1e-4
    assert made.manifest.parity["batches"] == [2, 1, 3]
