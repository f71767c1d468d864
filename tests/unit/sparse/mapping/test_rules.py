from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from billhook.errors import BudgetError, InputError
from billhook.graph import capture
from billhook.graph.patterns import parse_pattern
from billhook.graph.structure import viewed
from billhook.graph.weights import WeightLayer
from billhook.sparse.mapping import LatencyTable, Mapping, legal, map_by_rules, share_out
from billhook.sparse.mapping.candidates import coarsest
from billhook.sparse.mapping.sharing import options_of
from tests.unit.sparse.mapping.made_layers import conv, linear, table, vgg_16

LAYERS = [conv("a", 32, 16), conv("b", 32, 32, 1), conv("c", 48, 32, 5), linear("d", 10, 48)]


def _energies(layers: list[WeightLayer]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {la.tensor: viewed(torch.randn(la.shape, generator=generator)).square() for la in layers}


def _names(mapping: Mapping) -> list[str]:
    return ["dense" if p is None else p.name for p in mapping.choices.values()]


def test_mobilenet_v2(torchvision: ModuleType) -> None:
    layers = capture(torchvision.models.mobilenet_v2().eval(), torch.zeros(1, 3, 224, 224)).weights
    mapping = map_by_rules(layers, sparsity=0.8)
    assert len(layers) == 53
    for layer in layers:
        pattern = mapping.choices[layer.tensor]
        if layer.depthwise:
            assert pattern is None
            assert "depthwise" in mapping.reasons[layer.tensor]
        else:
            expected = "block" if layer.kind == "linear" else "block_punched"
            assert pattern is not None, layer.tensor
            assert pattern.name == expected
            assert mapping.sparsities[layer.tensor] == 0.8


@pytest.mark.parametrize(("task", "expected"), [("hard", "kernel_pattern"), ("easy", "block_punched")])
def test_vgg_16(task: str, expected: str) -> None:
    mapping = map_by_rules(vgg_16(), sparsity=0.8, task=task)
    assert _names(mapping) == [expected] * 13 + ["block"] * 3
    assert set(mapping.reasons) == set(mapping.choices)


@pytest.mark.parametrize("beta", [0.0, 0.05, 0.2, 1.0, 5.0])
@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.95])
def test_the_block_is_the_smallest_within_the_rule_by_brute_force(beta: float, sparsity: float) -> None:
    sizes = [(1, 1), (2, 1), (4, 1), (8, 1), (4, 4), (8, 4), (16, 16), (0, 1)]
    given = LatencyTable.default()
    mapping = map_by_rules(LAYERS, sparsity=sparsity, beta=beta, sizes=sizes, negligible=0.0)
    for layer in LAYERS:
        bound = (1 + beta) * given.latency(layer, coarsest(layer), sparsity)
        offered = [p for p in legal(layer, sizes=sizes) if p.name != "kernel_pattern"]
        offered = [p for p in offered if p.sparsities(layer.view)[1] >= sparsity]
        fit = [p for p in offered if given.latency(layer, p, sparsity) <= bound]
        best = min(fit, key=lambda p: p.rows * p.columns)  # type: ignore[attr-defined]
        if given.latency(layer, best, sparsity) <= 0.95 * given.latency(layer, None, 0.0):
            assert mapping.choices[layer.tensor] == best
        else:
            assert mapping.choices[layer.tensor] is None


def test_the_default_rule_takes_four_rows_and_a_strict_one_eight() -> None:
    layer, given = conv("a", 64, 64, 1), table(rows_4=[1, 0.52, 0], rows_8=[1, 0.5, 0])
    loose, strict = (
        map_by_rules([layer], sparsity=0.8, beta=b, table=given).choices["a.weight"] for b in (0.2, 0.0)
    )
    assert (loose, strict) == (parse_pattern("4x1"), parse_pattern("8x1"))


def test_layers_stay_dense_where_zeros_do_not_pay() -> None:
    late = table(rows_1=[1, 1, 0], rows_4=[1, 1, 0], coarse=[1, 1, 0])
    mapping = map_by_rules([conv("a", 64, 64, 1)], sparsity=0.1, table=late)
    assert mapping.choices == {"a.weight": None}
    assert "10% zeros do not pay" in mapping.reasons["a.weight"]
    assert mapping.sparsities == {}


def test_kernel_patterns_give_way_where_they_do_not_pay() -> None:
    slow = table(kernel=[2, 2, 2], rows_4=[1, 0.5, 0])
    mapping = map_by_rules([conv("a", 64, 64)], sparsity=0.8, task="hard", table=slow)
    assert mapping.choices == {"a.weight": parse_pattern("4x1")}


def test_kernel_patterns_take_away_what_they_must() -> None:
    fast = table(kernel=[0.5, 0.2, 0])
    mapping = map_by_rules([conv("a", 64, 64)], sparsity=0.1, task="hard", table=fast)
    pattern = mapping.patterns["a.weight"]
    assert mapping.sparsities["a.weight"] == pytest.approx(pattern.sparsities((64, 64, 9))[0])


def test_a_layer_of_negligible_time_stays_dense() -> None:
    layers = [conv("large", 64, 64, 1, pixels=10**6), conv("small", 16, 16, 1, pixels=1)]
    mapping = map_by_rules(layers, sparsity=0.8)
    assert mapping.choices["small.weight"] is None
    assert "of the time" in mapping.reasons["small.weight"]
    assert map_by_rules(layers, sparsity=0.8, negligible=0.0).choices["small.weight"] is not None


def test_a_layer_that_no_block_fits_stays_dense() -> None:
    mapping = map_by_rules([conv("a", 3, 8, 1)], sparsity=0.8, sizes=[(4, 1)])
    assert mapping.choices == {"a.weight": None}
    assert mapping.reasons["a.weight"] == "no pattern fits its shape"
    coarse = map_by_rules([conv("a", 4, 4, 1)], sparsity=0.9, sizes=[(4, 1)])
    assert coarse.reasons["a.weight"] == "no pattern that fits can reach 90%"


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_under_a_bound_no_single_pattern_loses_less(share: float) -> None:
    given, energies = LatencyTable.default(), _energies(LAYERS)
    bound = share * given.network(LAYERS, {})
    mapping = map_by_rules(LAYERS, latency=bound, energies=energies, negligible=0.0)
    assert given.network(LAYERS, mapping.choices, mapping.sparsities) <= bound * 1.001

    def lost(choices: Any, sparsities: Any) -> float:
        total = 0.0
        for layer in LAYERS:
            pattern = choices.get(layer.tensor)
            if pattern is not None and layer.tensor in sparsities:
                (option,) = options_of(layer, energies, [pattern], given, grid=[sparsities[layer.tensor]])[1:]
                total += option.loss
        return total

    mixed = lost(mapping.choices, mapping.sparsities)
    for text in ("4x1", "8x1", "8x4", "1x1"):
        single = {la.tensor: parse_pattern(text) for la in LAYERS}
        try:
            sparsities = share_out(LAYERS, energies, single, bound)
        except BudgetError:
            continue
        assert mixed <= lost(single, sparsities) + 1e-9


def test_under_a_bound_kernel_patterns_are_for_hard_tasks() -> None:
    fast = table(kernel=[0.1, 0.01, 0], rows_4=[1, 0.5, 0])
    layers = [conv("a", 32, 16)]
    bound = 0.5 * fast.network(layers, {})
    # One of two sets of four positions is large in every kernel: blocks cannot follow that.
    first = torch.rand(32, 16, 1, generator=torch.Generator().manual_seed(0)) < 0.5
    cross, corners = (torch.isin(torch.arange(9), torch.tensor(p)) for p in ([1, 3, 5, 7], [0, 2, 6, 8]))
    energies = {"a.weight": torch.where(first, cross, corners).float() + 0.01}
    easy, hard = (
        map_by_rules(layers, latency=bound, energies=energies, table=fast, task=t) for t in ("easy", "hard")
    )
    assert _names(easy) == ["block_punched"]
    assert _names(hard) == ["kernel_pattern"]


def test_a_loose_bound_leaves_all_dense_and_one_out_of_reach_is_an_error() -> None:
    dense, energies = LatencyTable.default().network(LAYERS, {}), _energies(LAYERS)
    assert map_by_rules(LAYERS, latency=dense, energies=energies).patterns == {}
    with pytest.raises(BudgetError, match="can be had"):
        map_by_rules(LAYERS, latency=dense / 1000, energies=energies)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either sparsity"),
        ({"sparsity": 0.8, "latency": 1.0}, "give either sparsity"),
        ({"latency": 1.0}, "latency needs energies"),
        ({"latency": 0.0, "energies": _energies(LAYERS)}, "latency bound"),
        ({"sparsity": 1.0}, "at least 0 and below 1"),
        ({"sparsity": -0.5}, "at least 0 and below 1"),
        ({"sparsity": float("nan")}, "at least 0 and below 1"),
        ({"sparsity": 0.8, "task": "middling"}, "task='middling': expected one of easy, hard"),
        ({"sparsity": 0.8, "beta": -0.1}, "beta=-0.1 must be"),
        ({"sparsity": 0.8, "negligible": float("nan")}, "negligible=nan must be"),
        ({"sparsity": 0.8, "sizes": [(0, 0)]}, "is no block"),
    ],
)
def test_bad_input_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        map_by_rules(LAYERS, **options)
