"""Costs of rows of widths and densities against those of plans with real structures."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from billhook.errors import InputError
from billhook.graph import Graph, Plan, apply, capture, make_plan
from billhook.graph.packing import packed_bytes
from billhook.graph.patterns import parse_pattern
from billhook.graph.structure import Structure, viewed
from billhook.models import build
from billhook.sparse.row_costs import RowCosts, flag_bytes

IMAGE = torch.zeros(1, 1, 28, 28)
METRICS = ("macs", "params", "bytes")


@cache
def resnet() -> tuple[nn.Module, Graph]:
    torch.manual_seed(0)
    model = build("resnet-20", in_channels=1, stem_stride=2, shortcut="B").eval()
    return model, capture(model, IMAGE)


def structured(pattern: str, multiple: int, seed: int) -> tuple[Plan, dict[str, float]]:
    """Return a plan with random widths and zeros in all layers but the first, and the densities asked for."""
    model, graph = resnet()
    rng = np.random.default_rng(seed)
    keep = {
        g.id: np.arange(g.size) < multiple * rng.integers(1, g.size // multiple + 1)
        for g in graph.groups.prunable
    }
    plan = make_plan(graph, keep)
    weights = {n: p.detach() for n, p in apply(model, plan).named_parameters()}
    structures, densities = {}, {}
    for layer in graph.weights[1:]:
        given, weight = parse_pattern(pattern), viewed(weights[layer.tensor])
        low, high = given.sparsities(tuple(weight.shape))  # type: ignore[arg-type]
        if given.refusal(tuple(weight.shape)) is not None:  # type: ignore[arg-type]
            continue
        densities[layer.tensor] = density = float(rng.choice([0.05, 0.1, 0.25, 0.4, 0.44, 0.7]))
        sparsity = min(max(1 - density, low), high)
        share = given.units_for(weight.square(), sparsity)
        structures[layer.tensor] = Structure(
            given, tuple(weights[layer.tensor].shape), given.choose(weight, share)
        )
    return plan.with_patterns(structures), densities


@pytest.mark.parametrize(
    ("pattern", "multiple", "macs", "params", "size"),
    [
        ("unstructured", 4, 1e-9, 1e-9, 1e-6),
        ("4x1", 4, 2e-5, 1e-3, 1e-3),  # the last layer has ten outputs
        ("4x4", 4, 1e-4, 3e-3, 3e-3),
        ("4x1", 1, 0.015, 0.01, 0.01),  # blocks reach over the border everywhere
        ("2:4", 4, 1e-6, 1e-6, 1e-3),
        ("kernel_pattern", 4, 0.01, 0.003, 0.01),
        ("unified:4x4", 4, 0.02, 0.01, 0.012),
    ],
)
def test_formulas_agree_with_real_structures(
    pattern: str, multiple: int, macs: float, params: float, size: float
) -> None:
    _, graph = resnet()
    for seed in range(4):
        plan, densities = structured(pattern, multiple, seed)
        told, counts = graph.costs.cost(plan), graph.costs.counts(plan)
        costs = RowCosts(graph, {name: parse_pattern(pattern) for name in densities})
        found = costs.of(counts[None], {n: np.array([d]) for n, d in densities.items()}, METRICS)
        assert found["macs"][0] == pytest.approx(told.macs, rel=macs)
        assert found["params"][0] == pytest.approx(told.params, rel=params)
        assert found["bytes"][0] == pytest.approx(told.bytes, rel=size)
        assert told.macs < 0.8 * graph.costs.evaluate(counts, ("macs",))["macs"][0]


def test_a_density_of_one_is_no_pattern() -> None:
    _, graph = resnet()
    tensor = graph.weights[3].tensor
    costs = RowCosts(graph, {tensor: parse_pattern("4x1")})
    rows = np.stack([graph.costs.sizes] * 2)
    found = costs.of(rows, {tensor: np.array([1.0, 0.5])})
    whole = graph.costs.evaluate(rows)
    for metric in METRICS:
        assert found[metric][0] == whole[metric][0] > found[metric][1]
    assert found["peak_activation_bytes"].tolist() == whole["peak_activation_bytes"].tolist()


def test_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(2, 8, 3, bias=False), nn.Conv2d(8, 16, 1, bias=False))
    graph = capture(model, torch.zeros(1, 2, 4, 4))
    costs = RowCosts(graph, {"1.weight": parse_pattern("4x1")})
    found = costs.of(np.array([[6]]), {"1.weight": np.array([0.5])}, METRICS)
    # 6 × 2 × 9 weights on 4 pixels; of 16 × 6 in 4 × 6 blocks, 12 blocks of 4 on 4 pixels
    assert found["macs"] == 4 * (108 + 48)
    assert found["params"] == 108 + 48
    assert found["bytes"] == 4 * (108 + 48) + 1 + 3  # how it is written, and 24 flags


@pytest.mark.parametrize("density", [0.004, 0.02, 0.06, 0.12, 0.13, 0.6])
def test_bytes_of_flags(density: float) -> None:
    flags = np.random.default_rng(0).random(40_000) < density
    told = flag_bytes(np.array([flags.size]), np.array([flags.sum()]))[0]
    assert told == pytest.approx(packed_bytes(flags, 2), rel=0.02)


def test_names_that_do_not_fit() -> None:
    _, graph = resnet()
    with pytest.raises(InputError, match="no layer has the weight 'stage'"):
        RowCosts(graph, {"stage": parse_pattern("4x1")})
    with pytest.raises(InputError, match="which has no pattern"):
        RowCosts(graph).of(graph.costs.sizes, {graph.weights[0].tensor: np.array([0.5])})
