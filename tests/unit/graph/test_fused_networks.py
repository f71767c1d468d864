"""Fused networks in the graph: groups of copies, channel numbers, plans, the smaller network, storage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import billhook
from billhook.errors import PlanError
from billhook.fuse import ChannelCopy, fuse
from billhook.graph import Plan, apply, capture, load, make_plan, save, silence, verify
from billhook.graph.branches import copied, may_be_empty
from billhook.graph.constants import Kept
from billhook.graph.layers import LayeredNetwork
from billhook.graph.slicing import cut_named
from tests.fused import distance, fused, fused_graph, random_plan
from tests.residual import RESIDUAL, residual, residual_graph
from tests.small_net import net

SHORTCUTS = ("basic", "bottleneck", "pre-activation", "resnet-20", "functions", "squeeze")


# Groups


def test_every_block_chooses_its_own_channels() -> None:
    assert [g.id for g in fused_graph("basic").groups.prunable] == [
        "stem", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2", "layer2.0.conv1",
        "layer2.0.conv2", "layer1.0.copies", "layer1.1.copies", "layer2.0.copies",
    ]  # fmt: skip
    assert len(residual_graph("basic").groups.prunable) == 5
    copies = fused_graph("basic").groups["layer1.1.copies"]
    assert {(m.tensor, m.role) for m in copies.members} == {
        ("layer1.1.copies.index", "out"), ("layer1.1.copies.magnitude", "out"), ("layer1.1.place.gate", "in")
    }  # fmt: skip


def test_copies_that_only_a_sum_reads_may_all_leave() -> None:
    graph = fused_graph("basic")
    assert graph.copies == {"layer1.0.copies", "layer1.1.copies"}  # a projection needs something to read
    groups = {g.id: g for g in graph.groups}
    assert copied(graph.flow, groups["layer2.0.copies"])
    assert not may_be_empty(graph.flow, groups["layer2.0.copies"])
    assert not copied(graph.flow, groups["layer1.1.conv2"])
    assert residual_graph("basic").copies == frozenset()


def test_branches_are_those_of_the_original() -> None:
    for name in SHORTCUTS:
        branches = [(b.id, b.groups) for b in fused_graph(name).branches]
        assert branches == [(b.id, b.groups) for b in residual_graph(name).branches], name


# Numbers of channels


def test_the_number_of_a_channel_that_leaves_becomes_none() -> None:
    model = net(
        lambda m, x: m.out(m.pick(m.a(x))), a=nn.Conv2d(3, 5, 1), out=nn.Conv2d(4, 2, 1),
        pick=ChannelCopy(torch.tensor([4, -1, 0, 2]), torch.ones(5)),
    )  # fmt: skip
    x = torch.randn(2, 3, 4, 4)
    graph = capture(model, x)
    plan = make_plan(graph, {"a": np.array([1, 1, 0, 0, 1]), "pick": np.array([1, 0, 1, 1])})
    kept = graph.kept(plan)
    index = model.pick.index
    assert cut_named("pick.index", index, kept).tolist() == [2, 0, -1]
    assert cut_named("pick.gate", model.pick.gate, kept).shape == (3,)
    once = apply(model, plan)
    assert once.pick.index.tolist() == [2, 0, -1]
    assert verify(model, plan, x, small=once).exact
    graph = capture(once, x)
    plan = make_plan(graph, {"a": np.array([0, 1, 1]), "pick": np.array([1, 1, 1])})
    assert apply(once, plan).pick.index.tolist() == [1, -1, -1]
    assert verify(once, plan, x).exact


def test_tensors_without_numbers_have_none() -> None:
    graph = fused_graph("basic")
    plan = make_plan(graph, {"stem": np.arange(8) > 2})
    kept = graph.kept(plan)
    assert isinstance(kept, Kept)
    assert kept.numbered("stem.weight") is None
    assert kept.numbered("layer1.1.copies.index") is None  # what it copies is whole
    mask = kept.numbered("layer1.0.copies.index")
    assert mask is not None
    assert mask.tolist() == [False] * 3 + [True] * 5


# Plans and smaller networks


@pytest.mark.parametrize("name", SHORTCUTS)
def test_whatever_leaves_silence_equals_removal(name: str) -> None:
    network, x = fused(name)
    graph = fused_graph(name)
    for seed, empty in ((0, 0.0), (1, 0.7)):
        plan = random_plan(graph, seed, empty=empty)
        small = apply(network, plan)
        check = verify(network, plan, x, small=small)
        assert check.exact, (seed, check)
        told = graph.costs.cost(plan)
        assert told.macs == capture(small, x).costs.cost().macs
        assert told.params == sum(p.numel() for p in small.parameters())
        assert small(x[:1]).shape == (1, 5)


@pytest.mark.parametrize("name", ["basic", "pre-activation", "functions"])
def test_the_original_and_the_fused_network_become_the_same(name: str) -> None:
    model, x = residual(name)
    network, _ = fused(name)
    plan = Plan.from_json(random_plan(fused_graph(name), 3, empty=0.5).to_json())
    one, two = apply(model, plan), apply(network, plan)
    assert isinstance(one, LayeredNetwork)
    assert isinstance(two, LayeredNetwork)
    assert [*one.state_dict()] == [*two.state_dict()]
    assert torch.equal(one(x), two(x))
    assert one.fusions == two.fusions == network.fusions
    assert torch.equal(silence(model, plan, x)(x), silence(network, plan, x)(x))
    assert verify(model, plan, x).exact
    assert billhook.cost(model, x, plan) == billhook.cost(network, x, plan)


def test_a_shortcut_that_is_gone_is_zero() -> None:
    model, x = residual("basic")
    plan = make_plan(fused_graph("basic"), {"layer1.1.copies": np.zeros(8)})
    assert plan.counts == {"layer1.1.copies": 0}
    with torch.no_grad():
        y = model.layer1[0](model.relu(model.bn(model.stem(x))))
        block = model.layer1[1]
        y = block.bn2(block.conv2(block.bn1(block.conv1(y)).relu())).relu()
        expected = model.fc(model.layer2(y).mean((2, 3)))
    torch.testing.assert_close(apply(model, plan)(x), expected)


def test_a_sum_of_which_nothing_is_left_is_refused() -> None:
    graph = fused_graph("basic")
    with pytest.raises(PlanError, match=r"the branch 'layer1\.1' and all copies of its shortcut"):
        make_plan(graph, {"layer1.1.copies": np.zeros(8), "layer1.1.conv1": np.zeros(8)})
    data = make_plan(graph, {"layer1.1.copies": np.zeros(8)}).to_dict()
    data["groups"]["layer1.1.conv1"] = {"size": 8, "keep": ""}
    with pytest.raises(PlanError, match=r"the branch 'layer1\.1' and all copies of its shortcut"):
        apply(residual("basic")[0], Plan.from_dict(data))


def test_copies_of_channels_that_are_gone_are_zero() -> None:
    network, x = fused("basic")
    graph = fused_graph("basic")
    first = np.arange(8) < 4
    plan = make_plan(
        graph, {"layer1.0.conv2": first, "layer1.1.copies": ~first, "layer1.1.conv1": np.zeros(8)}
    )
    small = apply(network, plan)
    assert verify(network, plan, x, small=small).exact
    assert torch.equal(small(x), small(torch.zeros_like(x)))  # nothing of the image is left


@pytest.mark.parametrize("name", ["basic", "resnet-20"])
def test_what_is_smaller_can_be_pruned_again(name: str) -> None:
    network, x = fused(name)
    for seed in range(3):
        graph = capture(network, x)
        plan = random_plan(graph, seed, share=0.7, empty=0.3)
        small = apply(network, plan)
        assert verify(network, plan, x, small=small).exact, seed
        network = small  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("stem", r"removes all 8 units of group 'stem'; at least one must stay"),
        ("layer1.0.conv2", r"removes all 8 units of group 'layer1.0.conv2'"),
        ("layer2.0.copies", r"removes all 8 units of group 'layer2.0.copies'"),
        ("fc", "is frozen"),
    ],
)
def test_what_must_stay_is_refused(group: str, message: str) -> None:
    graph = fused_graph("basic")
    with pytest.raises(PlanError, match=message):
        make_plan(graph, {group: np.zeros(graph.groups[group].size)})


def test_a_plan_for_the_original_does_not_fit_the_fused_network() -> None:
    plan = make_plan(residual_graph("basic"), {"stem": np.arange(8) < 4})
    assert not plan.fusions
    with pytest.raises(PlanError, match="made for another network"):
        apply(fused("basic")[0], plan)


def test_a_plan_whose_fusions_were_lost_does_not_fit_the_original() -> None:
    plan = make_plan(fused_graph("basic"), {"stem": np.arange(8) < 4})
    data = json.loads(plan.to_json())
    del data["fusions"]
    with pytest.raises(PlanError, match="made for another network"):
        apply(residual("basic")[0], Plan.from_dict(data))


def test_modes_and_momentum_survive_pruning() -> None:
    model, x = residual("basic")
    model.train()
    model.layer1[0].bn1.eval()
    model.bn.momentum = None
    network = fuse(model, x).network
    for empty in (0.0, 1.0):
        graph = capture(network, x)
        keep = {"layer1.1.conv1": np.arange(8) < 8 * (1 - empty), "stem": np.arange(8) < 5}
        small = apply(network, make_plan(graph, keep))
        assert small.training
        assert not small.get_submodule("layer1.0.bn1").training
        assert small.get_submodule("layer1.0.bn2").training
        assert small.get_submodule("bn").momentum is None


# Storage


@pytest.mark.parametrize("empty", [0.0, 0.7])
def test_it_can_be_saved_and_loaded(empty: float, tmp_path: Path) -> None:
    model, x = residual("basic")
    network, _ = fused("basic")
    plan = random_plan(fused_graph("basic"), 5, empty=empty)
    small = apply(network, plan)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.mul_(1.1)
    save(tmp_path / "tuned", small, plan)
    read = load(tmp_path / "tuned", RESIDUAL["basic"]).eval()
    assert torch.equal(read(x), small.eval()(x))
    for name, whole in (("original", model), ("fused", network)):
        save(tmp_path / name, whole, plan)
        read = load(tmp_path / name, RESIDUAL["basic"]).eval()
        assert torch.equal(read(x), apply(network, plan)(x))
    assert Plan.load(tmp_path / "tuned" / "plan.json") == plan


def test_costs_under_a_plan_need_no_fused_network() -> None:
    model, x = residual("basic")
    plan = random_plan(fused_graph("basic"), 1)
    assert billhook.cost(model, x, plan) == fused_graph("basic").costs.cost(plan)
    assert billhook.cost(fused("basic")[0], x).macs == billhook.cost(model, x).macs


def test_channels_that_were_tied_leave_alone() -> None:
    network, x = fused("basic")
    keep = np.arange(8) != 3
    plan = make_plan(fused_graph("basic"), {"layer1.0.conv2": keep})
    small = apply(network, plan)
    assert small.get_parameter("stem.weight").shape[0] == 8
    assert small.get_parameter("layer1.1.conv2.weight").shape[0] == 8
    assert distance(network, small, x) > 1e-3
