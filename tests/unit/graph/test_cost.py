"""Cost formulas give the numbers of the network that is really built."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook import Budget, prune
from billhook.errors import InputError, PlanError
from billhook.graph import Graph, Plan, apply, capture, cost, make_plan
from billhook.graph.cost import METRICS
from billhook.graph.patterns import parse_pattern
from billhook.graph.structure import Structure, viewed
from tests.networks import NETWORKS, build
from tests.oracle import random_plan
from tests.residual import residual


def counted(model: nn.Module) -> tuple[int, int]:
    """Return parameters and bytes of a module."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(p.numel() for p in model.parameters()), sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_formulas_give_the_costs_of_the_smaller_network(name: str) -> None:
    model, inputs = build(name)
    graph = capture(model, inputs)
    plan = random_plan(graph)
    small = apply(model, plan)
    told = graph.costs.cost(plan)

    assert (told.params, told.bytes) == counted(small)
    rebuilt = capture(small, inputs).costs.cost()
    assert told.macs == rebuilt.macs
    assert told.peak_activation_bytes == rebuilt.peak_activation_bytes
    assert told.macs < graph.costs.cost().macs


@pytest.mark.parametrize("name", NETWORKS)
def test_the_whole_network_costs_what_it_has(name: str) -> None:
    model, inputs = build(name)
    whole = cost(model, inputs)
    assert (whole.params, whole.bytes) == counted(model)


def test_macs_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),  # 2 images × 16 pixels × 9 × 3 × 8
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4),  # 2 × 4 pixels × 9 × 2 × 8
        nn.ConvTranspose2d(8, 6, 2, stride=2),  # 2 × 4 input pixels × 4 × 8 × 6
        nn.Flatten(),
        nn.Linear(96, 10),  # 2 × 96 × 10
    )
    by_layer = capture(model, torch.zeros(2, 3, 4, 4)).costs.macs_by_layer()
    assert by_layer == {"0": 2 * 16 * 9 * 24, "1": 2 * 4 * 9 * 16, "2": 2 * 4 * 4 * 48, "4": 2 * 960}
    assert cost(model, torch.zeros(2, 3, 4, 4)).macs == sum(by_layer.values())


def test_macs_of_matrix_products_by_hand() -> None:
    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 8)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (layer(x).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
            x = nn.functional.scaled_dot_product_attention(q, k, v)
            return torch.einsum("bhtd,bhsd->bhts", x, q @ k.mT @ v)

    macs = cost(Products(), torch.zeros(3, 5, 6)).macs
    projections = 3 * 3 * 5 * 6 * 8
    product = 3 * 2 * 5 * 5 * 4  # batch × heads × tokens² × size
    assert macs == projections + 5 * product


def test_peak_activation_by_hand() -> None:
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    # The largest moment: the wide tensor and its ReLU, 2 × 16 floats each.
    assert cost(model, torch.zeros(2, 4)).peak_activation_bytes == 2 * 2 * 16 * 4


def test_views_and_operations_in_place_take_no_memory() -> None:
    model = nn.Sequential(
        nn.Linear(4, 16), nn.ReLU(inplace=True), nn.Unflatten(1, (4, 4)), nn.Flatten(), nn.Linear(16, 2)
    )
    assert cost(model, torch.zeros(2, 4)).peak_activation_bytes == (2 * 16 + 2 * 4) * 4


def test_parts_of_weights_are_no_activations() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.whole = nn.Parameter(torch.zeros(400, 4))

        def forward(self, x: Tensor) -> Tensor:
            first, second = self.whole.chunk(2)
            return nn.functional.linear(x, first[:3]) + nn.functional.linear(x, second[:3])

    assert cost(Parts(), torch.zeros(1, 4)).peak_activation_bytes == (4 + 3 + 3) * 4


def test_shared_weights_count_once_as_parameters_and_each_time_as_work() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
    model[2].weight = model[0].weight
    total = cost(model, torch.zeros(1, 4))
    assert (total.params, total.macs) == (16, 32)


def test_half_precision_halves_the_bytes() -> None:
    model = nn.Sequential(nn.Linear(4, 4)).to(torch.bfloat16)
    assert cost(model, torch.zeros(1, 4, dtype=torch.bfloat16)).bytes == 40


@pytest.fixture(scope="module")
def graph() -> Graph:
    return capture(*build("residual"))


def test_thousands_of_plans_at_once_are_each_what_one_would_be(graph: Graph) -> None:
    costs = graph.costs
    random = np.random.default_rng(0)
    counts = np.stack([random.integers(1, costs.sizes + 1) for _ in range(200)])
    together = costs.evaluate(counts)
    assert set(together) == set(METRICS)
    for row in (0, 57, 199):
        alone = costs.evaluate(counts[row])
        assert {m: v[0] for m, v in alone.items()} == {m: v[row] for m, v in together.items()}


def test_counts_of_a_plan_have_the_columns_of_the_prunable_groups(graph: Graph) -> None:
    plan = random_plan(graph)
    assert graph.costs.group_ids == tuple(g.id for g in graph.groups.prunable)
    assert graph.costs.counts(plan).tolist() == [plan.counts[g] for g in graph.costs.group_ids]
    assert graph.costs.counts(None).tolist() == graph.costs.sizes.tolist()
    one = graph.costs.evaluate(graph.costs.counts(plan), metrics=("macs",))
    assert list(one) == ["macs"]
    assert one["macs"][0] == graph.costs.cost(plan).macs


def test_every_metric_grows_with_every_group(graph: Graph) -> None:
    costs = graph.costs
    less = np.tile(costs.sizes, (len(costs.sizes), 1)) - np.eye(len(costs.sizes), dtype=int)
    full = costs.evaluate(costs.sizes[None])
    for metric, values in costs.evaluate(less).items():
        assert (values <= full[metric]).all()
        if metric != "peak_activation_bytes":
            assert (values < full[metric]).all()


def test_wrong_columns_and_unknown_metrics_are_refused(graph: Graph) -> None:
    with pytest.raises(InputError, match="counts have 2 columns; the network has"):
        graph.costs.evaluate(np.ones((3, 2)))
    with pytest.raises(InputError, match="unknown cost metric 'mac'; did you mean 'macs'"):
        graph.costs.evaluate(graph.costs.sizes, metrics=("mac",))


def test_a_branch_without_units_costs_nothing() -> None:
    model, x = residual("bottleneck")
    costs = capture(model, x).costs
    inner = [costs.group_ids.index(f"layer1.1.conv{i}") for i in (1, 2)]
    counts = np.tile(costs.sizes, (4, 1))
    counts[1, inner[0]] = counts[2, inner] = 0  # one group is enough
    counts[3, inner] = 1
    told = costs.evaluate(counts)
    block = model.layer1[1]
    for metric, saved in (
        ("params", sum(p.numel() for p in block.parameters())),
        ("bytes", sum(t.numel() * t.element_size() for t in [*block.parameters(), *block.buffers()])),
        ("macs", 2 * 64 * (8 * 4 + 4 * 4 * 9 + 4 * 8)),
    ):
        assert told[metric][0] - told[metric][1] == saved
        assert told[metric][2] == told[metric][1] < told[metric][3]
    assert told["peak_activation_bytes"][1] <= told["peak_activation_bytes"][0]


def test_macs_of_a_layer_that_is_gone_are_zero() -> None:
    model, x = residual("basic")
    graph = capture(model, x)
    layers = graph.costs.macs_by_layer(make_plan(graph, {"layer1.0.conv1": np.zeros(8)}))
    assert layers["layer1.0.conv1"] == layers["layer1.0.conv2"] == 0
    assert layers["layer1.1.conv1"] == 2 * 64 * 9 * 64


def test_rows_do_not_disturb_each_other() -> None:
    costs = capture(*residual("basic")).costs
    generator = np.random.default_rng(0)
    counts = generator.integers(0, 3, (20, len(costs.sizes)))
    together = costs.evaluate(counts)
    for metric in ("macs", "params", "bytes"):
        assert together[metric].tolist() == [costs.evaluate(c[None])[metric][0] for c in counts]


def test_layers_are_the_operators_with_macs_that_are_left() -> None:
    model, x = residual("bottleneck")
    costs = capture(model, x).costs
    made = sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules())
    counts = np.tile(costs.sizes, (3, 1))
    counts[1] = 1
    counts[2, costs.group_ids.index("layer1.1.conv1")] = 0
    assert costs.evaluate(counts, metrics=("layers",))["layers"].tolist() == [made, made, made - 3]


def test_an_operator_of_several_products_is_one_layer() -> None:
    model, x = residual("attention")
    costs = capture(model, x).costs
    layers = costs.evaluate(costs.sizes, metrics=("layers",))["layers"]
    linear = sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules())
    assert linear < layers[0] <= len(costs.macs_by_layer()) + 1


def _sparse(model: nn.Module, x: Tensor, plan: Plan | None) -> Plan:
    """Return the plan with blocks of 4×1 in all layers, half of them gone."""
    small = model if plan is None else apply(model, plan)
    weights, pattern = dict(small.named_parameters()), parse_pattern("4x1")
    structures = {
        la.tensor: Structure(pattern, la.shape, pattern.choose(viewed(weights[la.tensor].detach()), 0.5))
        for la in capture(small, x).weights
    }
    return (make_plan(capture(model, x), {}) if plan is None else plan).with_patterns(structures)


def test_channels_among_the_positions_of_a_linear_layer_leave_its_macs() -> None:
    model = nn.Sequential(nn.Conv1d(4, 16, 1), nn.Linear(10, 10), nn.Conv1d(16, 5, 1)).eval()
    x = torch.randn(1, 4, 10)
    plan = _sparse(model, x, prune(model, x, budget=Budget(macs=0.5), round_to=1))
    small = apply(model, plan)
    alone = make_plan(capture(small, x), {}).with_patterns(plan.patterns)
    assert cost(model, x, plan) == cost(small, x, alone)
    assert cost(model, x, plan).macs > 0


@pytest.mark.parametrize("wrong", ["unknown tensor", "another shape", "cut by the plan"])
def test_a_pattern_that_does_not_fit_has_no_cost(wrong: str) -> None:
    model, x = build("plain")
    plan = _sparse(model, x, None)
    structure = plan.patterns["conv2.weight"]
    if wrong == "unknown tensor":
        plan = plan.with_patterns({"nope.weight": structure})
    elif wrong == "another shape":
        plan = plan.with_patterns({"conv1.weight": structure})
    else:
        plan = prune(model, x, budget=Budget(macs=0.5)).with_patterns(plan.patterns)
    with pytest.raises(PlanError, match="made for another network"):
        cost(model, x, plan)
