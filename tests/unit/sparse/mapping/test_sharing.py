from __future__ import annotations

from itertools import product

import pytest
import torch

from billhook.errors import BudgetError, InputError
from billhook.graph.patterns import parse_pattern
from billhook.graph.structure import viewed
from billhook.graph.weights import WeightLayer
from billhook.sparse.mapping import LatencyTable, share_out
from billhook.sparse.mapping.sharing import Option, descend, options_of, removals
from tests.unit.sparse.mapping.made_layers import conv, linear
from tests.unit.sparse.mapping.made_layers import table as made_table

GRID = (0.3, 0.5, 0.7, 0.9)


def _energies(layers: list[WeightLayer], seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        la.tensor: viewed(torch.randn(la.shape, generator=generator)).square() * (i + 1)
        for i, la in enumerate(layers)
    }


LAYERS = [conv("a", 32, 16), conv("b", 32, 32, 1), conv("c", 48, 32, 5), linear("d", 10, 48)]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("loss", ["lamp", "fraction", "energy"])
def test_the_bound_is_met_and_close_to_the_best_of_all_combinations(share: float, loss: str) -> None:
    # Where zeros pay from the first on; four layers are few to take steps over a flat beginning with.
    table, pattern = made_table(rows_4=[1.25, 0.7, 0]), parse_pattern("4x1")
    energies, choices = _energies(LAYERS), {la.tensor: pattern for la in LAYERS}
    bound = share * table.network(LAYERS, {})
    shares = share_out(LAYERS, energies, choices, bound, table, loss=loss, grid=GRID)
    curves = [options_of(la, energies, [pattern], table, loss=loss, grid=GRID) for la in LAYERS]
    found = sum(
        next(o.loss for o in options if o.sparsity == shares.get(la.tensor, 0.0))
        for la, options in zip(LAYERS, curves, strict=True)
    )
    best = min(sum(o.loss for o in c) for c in product(*curves) if sum(o.seconds for o in c) <= bound)
    assert table.network(LAYERS, {t: pattern for t in shares}, shares) <= bound * 1.001
    assert best <= found <= best * 1.15 + 1e-9


def test_without_need_all_layers_stay_dense() -> None:
    table, choices = LatencyTable.default(), {la.tensor: parse_pattern("4x1") for la in LAYERS}
    assert share_out(LAYERS, _energies(LAYERS), choices, table.network(LAYERS, {})) == {}


def test_a_layer_with_nothing_in_most_of_its_blocks_gives_way_first() -> None:
    layers = [conv("full", 32, 32), conv("empty", 32, 32)]
    energies = _energies(layers)
    energies["empty.weight"][:, 8:] = 0
    choices = {la.tensor: parse_pattern("4x1") for la in layers}
    bound = 0.8 * LatencyTable.default().network(layers, {})
    shares = share_out(layers, energies, choices, bound)
    assert shares["empty.weight"] >= 0.7
    assert shares.get("full.weight", 0.0) == 0.0


def test_layers_without_a_pattern_stay_dense() -> None:
    choices = {la.tensor: parse_pattern("4x1") if la.layer == "c" else None for la in LAYERS}
    shares = share_out(LAYERS, _energies(LAYERS), choices, 0.5 * LatencyTable.default().network(LAYERS, {}))
    assert set(shares) == {"c.weight"}


def test_a_bound_out_of_reach_is_an_error_that_names_what_can_be_had() -> None:
    choices = {"a.weight": parse_pattern("4x1")}
    with pytest.raises(BudgetError, match="can be had") as caught:
        share_out(LAYERS, _energies(LAYERS), choices, 1e-9)
    reachable = caught.value.reachable["latency"]
    shares = share_out(LAYERS, _energies(LAYERS), choices, reachable)
    assert shares == {"a.weight": 0.98}


@pytest.mark.parametrize(
    ("pattern", "shape"),
    [
        ("4x1", (10, 7, 9)),
        ("8x4", (24, 17, 1)),
        ("1x1", (3, 5, 9)),
        ("block:4x4", (10, 9, 1)),
        ("kernel_pattern", (10, 8, 9)),
        ("column", (6, 8, 9)),
    ],
)
def test_what_a_block_pattern_removes_is_what_its_structure_removes(
    pattern: str, shape: tuple[int, int, int]
) -> None:
    chosen, energy = parse_pattern(pattern), torch.rand(shape, generator=torch.Generator().manual_seed(1))
    points = removals(chosen, energy, GRID)
    assert len(points) >= 3
    for sparsity, zeros, lost in points:
        gone = ~chosen.mask(chosen.select(energy, chosen.unit_sparsity(sparsity, shape)), shape)
        assert zeros == pytest.approx(gone.double().mean().item())
        assert lost == pytest.approx(energy[gone].sum().item(), rel=1e-5)


def test_steps_off_the_hull_are_only_taken_to_spend_what_is_left() -> None:
    def option(seconds: float, loss: float) -> Option:
        return Option(None, 0.0, seconds, loss)

    curve = [option(10, 0), option(8, 9), option(5, 10)]  # the middle one lies above the line
    assert descend([curve], 9)[0].loss == 9  # one step to 10 overshoots; the middle one fits too
    other = [option(10, 0), option(4, 11)]
    assert [o.seconds for o in descend([curve, other], 14)] == [10, 4]


def test_an_empty_layer_costs_nothing_to_prune() -> None:
    layers = [conv("a", 32, 32), conv("b", 32, 32)]
    energies = _energies(layers)
    energies["a.weight"] = torch.zeros(layers[0].view)
    choices = {la.tensor: parse_pattern("4x1") for la in layers}
    shares = share_out(layers, energies, choices, 0.6 * LatencyTable.default().network(layers, {}))
    assert shares.get("b.weight", 0.0) == 0.0


def test_bad_input_is_refused() -> None:
    choices, energies = {"a.weight": parse_pattern("4x1")}, _energies(LAYERS)
    with pytest.raises(InputError, match="no layer has the weight 'x'"):
        share_out(LAYERS, energies, {"x": None}, 1.0)
    with pytest.raises(InputError, match=r"no energy is given for 'a\.weight'"):
        share_out(LAYERS, {}, choices, 1.0)
    with pytest.raises(InputError, match=r"energy of a\.weight has the shape \[32, 16, 3, 3\]"):
        share_out(LAYERS, {"a.weight": torch.ones(32, 16, 3, 3)}, choices, 1.0)
    with pytest.raises(InputError, match="not finite or below 0"):
        share_out(LAYERS, {"a.weight": torch.full((32, 16, 9), float("nan"))}, choices, 1.0)
    with pytest.raises(InputError, match="loss='l2': expected one of lamp"):
        share_out(LAYERS, energies, choices, 1.0, loss="l2")
    with pytest.raises(InputError, match=r"sparsity=1\.0 must be"):
        share_out(LAYERS, energies, choices, 1.0, grid=(0.5, 1.0))
    for bound in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="latency bound"):
            share_out(LAYERS, energies, choices, bound)
