"""AMC: its check, whole searches on a small network, and the counts of the networks that were published."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from billhook.allocate.budget import Budget
from billhook.errors import BudgetError, InputError
from billhook.graph import Graph, capture
from billhook.search import driver
from billhook.search.costs import SearchCosts
from billhook.search.driver import search
from billhook.search.searchers.amc import AMC
from billhook.search.space import Space
from tests.search import Table, problem

V1 = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
# Input channels of every layer but the depthwise ones, from the authors' mit-han-lab/amc-models.
HALF_FLOPS = (3, 24, 48, 96, 80, 192, 200, 328, 352, 368, 360, 328, 400, 736, 752)
HALF_TIME = (3, 16, 48, 88, 80, 192, 168, 336, 360, 360, 352, 352, 368, 768, 680)
THREE_QUARTERS = (3, *(w * 3 // 4 for w in V1))
V2_70 = (
    *(3, 24, 16, 72, 24, 104, 24, 104, 32, 136, 32, 136, 32, 136, 64, 272, 64, 272, 64, 272, 64, 272),
    *(96, 408, 96, 400, 96, 400, 160, 712, 160, 720, 160, 712, 248, 848),
)


def mobilenet_v1() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    for before, after, stride in zip(V1[:-1], V1[1:], STRIDES, strict=True):
        layers += [nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False), nn.BatchNorm2d(before)]
        layers += [nn.ReLU(), nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000)).eval()


@pytest.fixture(scope="module")
def v1() -> Graph:
    return capture(mobilenet_v1(), torch.zeros(1, 3, 224, 224))


def published(graph: Graph, inputs: tuple[int, ...]) -> float:
    """Return the MACs of a network whose layers read so many channels."""
    layers = [layer for layer in graph.weights if not layer.depthwise]
    assert len(layers) == len(inputs)
    reads = {layer.tensor: count for layer, count in zip(layers, inputs, strict=True)}
    values: dict[str, list[int]] = {}
    for group in graph.groups.prunable:
        counts = {reads[m.tensor] for m in group.members if m.role == "in" and m.tensor in reads}
        assert len(counts) == 1  # layers that read one group agree
        values[group.id] = sorted({*counts, group.size})
    space = Space(graph, values, {g.id: np.arange(g.size) for g in graph.groups.prunable})
    return float(SearchCosts(space).of(space.lowest, ["macs"])["macs"][0])


@pytest.mark.parametrize(
    ("inputs", "millions"),
    [((3, *V1), 568.7), (THREE_QUARTERS, 325.4), (HALF_FLOPS, 293.9), (HALF_TIME, 274.0)],
    ids=["dense", "0.75x", "50 % FLOPs", "50 % time"],
)
def test_published_mobilenets_have_the_macs_that_were_recounted(
    v1: Graph, inputs: tuple[int, ...], millions: float
) -> None:
    assert published(v1, inputs) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.slow
def test_the_published_mobilenet_v2_has_the_macs_of_its_readme(torchvision: ModuleType) -> None:
    net = torchvision.models.mobilenet_v2(weights=None).eval()
    graph = capture(net, torch.zeros(1, 3, 224, 224))
    assert published(graph, V2_70) / 1e6 == pytest.approx(210.6, abs=0.1)


@pytest.mark.parametrize("reward", ["error", "accuracy"])
def test_a_reward_without_costs_needs_a_budget(reward: str) -> None:
    with pytest.raises(InputError, match="everything would stay"):
        AMC(reward=reward).check(problem("plain"))
    AMC(reward=reward).check(problem("plain", Budget(macs=0.5)))
    AMC(reward="error-log-macs").check(problem("plain"))


def test_a_budget_out_of_reach_is_refused_before_the_first_trial() -> None:
    with pytest.raises(BudgetError, match="reach from"):
        search(problem("plain", Budget(macs=1e-6)), "amc", trials=4)


def test_candidates_keep_the_budget_and_the_accuracy_is_that_of_sliced_networks() -> None:
    searched = problem("residual", Budget(macs=0.5))
    found = search(searched, "amc", trials=8, options={"hidden": 8, "warmup": 4})
    rows = np.array([t.genes for t in found.trials])
    assert SearchCosts(searched.space, searched.budget).within(rows).all()
    assert found.best is not None
    assert found.plan().counts


def test_a_search_that_stopped_goes_on_to_the_same_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables: list[Table] = []

    def table(searched: object) -> Table:
        tables.append(Table(searched.space, lambda f: float(f[0])))  # type: ignore[attr-defined]
        return tables[-1]

    monkeypatch.setattr(driver, "InheritedWeights", table)
    options = {"hidden": 8, "warmup": 4}

    def run(trials: int, study: Path) -> list[tuple[int, ...]]:
        searched = problem("residual", Budget(macs=0.5))
        return [t.genes for t in search(searched, "amc", trials=trials, options=options, study=study).trials]

    whole = run(16, tmp_path / "whole.db")
    part = run(7, tmp_path / "part.db")
    assert whole[:7] == part
    before = sum(len(t.asked) for t in tables)
    assert run(16, tmp_path / "part.db") == whole
    assert sum(len(t.asked) for t in tables) - before <= 9  # finished trials were not evaluated again


@pytest.mark.parametrize("reward", ["error-log-macs", "error-log-params"])
def test_without_a_budget_rewards_lead_to_smaller_networks(
    reward: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Accuracy is all the same: only costs are left to learn from.
    monkeypatch.setattr(driver, "InheritedWeights", lambda p: Table(p.space, lambda f: 0.5))
    searched = problem("residual")
    options = {"reward": reward, "hidden": 32, "warmup": 20}
    found = search(searched, "amc", trials=80, options=options)
    metric = reward.rpartition("-")[2]
    costs = [t.costs[metric] for t in found.trials]
    assert np.mean(costs[-20:]) < 0.8 * np.mean(costs[:20])


@pytest.mark.parametrize("channels", [True, False], ids=["both", "fine-grained"])
def test_densities_are_decided_within_the_budget_as_well(channels: bool) -> None:
    searched = problem("plain", Budget(params=0.4), pattern="unstructured", channels=channels)
    found = search(searched, "amc", trials=6, options={"hidden": 8, "warmup": 3})
    space = searched.space
    assert bool(space.groups) is channels
    assert space.layers
    rows = np.array([t.genes for t in found.trials])
    assert SearchCosts(space, searched.budget).within(rows).all()
    assert len({t.genes for t in found.trials}) > 3
    assert found.plan().patterns
