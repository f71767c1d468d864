"""Cluster pruning: clusters, means, and additions that change nothing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook import Budget
from billhook.fuse import channel_selection
from billhook.graph import capture, make_plan, verify
from billhook.methods import Problem
from billhook.methods._clusters import (
    add_channels_,
    average_,
    filters,
    kmeans,
    mergeable,
    merged_clusters,
    squared_distances,
)
from billhook.methods._units import live_tensors
from billhook.methods.ascp import Ascp, _first_of_each
from billhook.train import CallbackDriver, FitConfig
from tests.networks import NETWORKS, batches, build

TRAINING = FitConfig(epochs=4, lr=0.05, precision="32-true")


def _gram(rows: Tensor) -> Tensor:
    centred = rows.double() - rows.double().mean(0)
    return centred @ centred.T


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _members(group: object) -> list:
    return [m for m in group.members if m.role != "in"]  # type: ignore[attr-defined]


def test_planted_copies_are_paired_and_removed_exactly() -> None:
    model, inputs = build("plain")
    with torch.no_grad():
        model.conv1.weight[2] = model.conv1.weight[0]
        for tensor in (model.bn1.weight, model.bn1.bias, model.bn1.running_mean, model.bn1.running_var):
            tensor[2] = tensor[0]
        before = model(inputs)
    graph, tensors = capture(model, inputs), live_tensors(model)
    group = graph.groups["conv1"]
    rows = filters(group, tensors)
    labels = kmeans(rows @ rows.T, group.size - 1, _generator())
    assert labels[2] == labels[0]
    assert len(set(labels.tolist())) == 15
    add_channels_(group, tensors, labels)
    plan = make_plan(graph, {"conv1": _first_of_each(labels)})
    assert np.flatnonzero(~plan.keep["conv1"]).tolist() == [2]
    with torch.no_grad():
        assert torch.allclose(model(inputs), before, atol=1e-6)
        assert torch.allclose(_apply(model, plan)(inputs), before, atol=1e-6)


def _apply(model: nn.Module, plan: object) -> nn.Module:
    from billhook import apply

    return apply(model, plan).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_can_be_added_up_in_every_network(name: str) -> None:
    """The full network after the projection computes what is left after addition and removal."""
    model, inputs = build(name)
    graph, tensors = capture(model, inputs), live_tensors(model)
    original = model(inputs)
    groups = [g for g in graph.groups.prunable if g.id in mergeable(graph, tensors)]
    assert groups
    keep, clusters = {}, {}
    for group in groups:
        rows = filters(group, tensors)
        clusters[group.id] = kmeans(rows @ rows.T, max(1, group.size // 2), _generator())
        keep[group.id] = _first_of_each(clusters[group.id])
        average_([(tensors[m.tensor], m) for m in _members(group)], clusters[group.id])
    with torch.no_grad():
        projected = model(inputs)
        for group in groups:
            add_channels_(group, tensors, clusters[group.id])
        small = _apply(model, make_plan(graph, keep))(inputs)
        silent = model(inputs)
    assert not torch.allclose(projected, original, atol=1e-3)
    assert torch.allclose(silent, projected, atol=1e-5)
    assert torch.allclose(small, projected, atol=1e-5)


def test_silencing_the_same_units_without_addition_changes_the_outputs() -> None:
    model, inputs = build("plain")
    graph, tensors = capture(model, inputs), live_tensors(model)
    group = graph.groups["conv1"]
    labels = torch.arange(16) % 8
    average_([(tensors[m.tensor], m) for m in _members(group)], labels)
    plan = make_plan(graph, {"conv1": _first_of_each(labels)})
    with torch.no_grad():
        assert not torch.allclose(_apply(model, plan)(inputs), model(inputs), atol=1e-3)


def test_the_projection_is_idempotent_and_nearest() -> None:
    model, inputs = build("plain")
    group = capture(model, inputs).groups["conv1"]
    member = group.members[0]
    weight = model.conv1.weight.detach().clone()
    labels = torch.tensor([0, 1, 0, 2, 1, 1, 3, 3, 3, 3, 4, 5, 6, 7, 7, 0])
    once = weight.clone()
    average_([(once, member)], labels)
    twice = once.clone()
    average_([(twice, member)], labels)
    assert torch.allclose(once, twice, atol=1e-7)
    assert torch.allclose(once[1], weight[[1, 4, 5]].mean(0))
    distance = (weight - once)[[1, 4, 5]].square().sum()
    for shift in (0.01, -0.01):
        assert (weight - once - shift)[[1, 4, 5]].square().sum() > distance


def test_clusters_are_those_that_can_be_seen() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    rows = centres.repeat(5, 1) + 0.1 * torch.randn(20, 2, generator=_generator(1))
    labels = kmeans(_gram(rows), 4, _generator())
    assert all(len(set(labels[i::4].tolist())) == 1 for i in range(4))
    assert len(set(labels.tolist())) == 4
    # Distances by inner products are the distances by hand.
    means = torch.stack([rows[labels == k].mean(0) for k in range(4)])
    by_hand = (rows[:, None] - means).square().sum(2)
    assert torch.allclose(squared_distances(_gram(rows), labels, 4).float(), by_hand, atol=1e-3)


@pytest.mark.parametrize("clusters", [1, 3, 7, 8])
def test_no_cluster_is_ever_empty(clusters: int) -> None:
    """Even where there are fewer different rows than clusters."""
    rows = torch.tensor([[1.0, 2.0]]).repeat(8, 1)
    rows[0] += 1
    labels = kmeans(_gram(rows), clusters, _generator(), restarts=2)
    assert sorted(set(labels.tolist())) == list(range(clusters))
    assert clusters == 1 or (labels == labels[0]).sum() == 1


def test_the_clusters_of_the_round_before_are_joined_where_it_costs_least() -> None:
    """By hand: centroids 0, 1, 5, 100 of sizes 1, 3, 1, 1; joining 0 and 1 costs 3/4, 1 and 5 costs 12."""
    rows = torch.tensor([[0.0], [1.0], [1.0], [1.0], [5.0], [100.0]])
    labels = torch.tensor([0, 1, 1, 1, 2, 3])
    joined = merged_clusters(_gram(rows), labels, 3)
    assert joined.tolist() == [0, 0, 0, 0, 1, 2]
    assert merged_clusters(_gram(rows), labels, 2).tolist() == [0, 0, 0, 0, 0, 1]
    assert merged_clusters(_gram(rows), labels, 4).tolist() == labels.tolist()


def test_members_part_again_only_if_they_are_read_differently() -> None:
    model, inputs = build("plain")
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    data = batches("plain", 1)[0]
    graph, tensors = capture(model, inputs), live_tensors(model)
    group = graph.groups["conv1"]
    labels = torch.arange(16)
    labels[1], labels[3] = 0, 2
    average_([(tensors[m.tensor], m) for m in _members(group)], labels)
    with torch.no_grad():
        model.conv2.weight[:, 1] = model.conv2.weight[:, 0]
    nn.functional.cross_entropy(model(data[0]), data[1]).backward()
    optimizer.step()
    weight = model.conv1.weight
    assert torch.allclose(weight[0], weight[1], atol=1e-7)
    assert not torch.allclose(weight[2], weight[3], atol=1e-5)


def test_momentum_is_averaged_like_the_weights() -> None:
    model, inputs = build("plain")
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    callback = Ascp(rounds=2).callback(Problem(model, inputs, Budget(macs=0.5), round_to=1))
    driver = CallbackDriver([callback], model, optimizer, total_steps=2)
    for x, y in batches("plain", 1):
        driver.before_step(x, y)
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        driver.after_step()
    labels = callback.memory["clusters"]["conv1"]
    momentum = optimizer.state[model.conv1.weight]["momentum_buffer"]
    pairs = [(i, j) for i in range(16) for j in range(i) if labels[i] == labels[j]]
    assert pairs
    for i, j in pairs:
        assert torch.equal(momentum[i], momentum[j])
        assert torch.equal(model.conv1.weight[i], model.conv1.weight[j])
        assert model.bn1.running_var[i] == model.bn1.running_var[j]


@pytest.mark.parametrize("name", ["residual", "concat", "depthwise_squeeze", "attention", "flatten"])
def test_the_small_network_computes_what_the_large_one_does(name: str) -> None:
    model, inputs = build(name)
    before = copy.deepcopy(model.state_dict())
    problem = Problem(model, inputs, Budget(macs=0.6), data=batches(name), training=TRAINING)
    outcome = Ascp().run(problem)
    assert outcome.plan.removed
    assert verify(outcome.model, outcome.plan, inputs).exact
    assert torch.allclose(outcome.small().eval()(inputs), outcome.model.eval()(inputs), atol=1e-5)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


class PreActivation(nn.Module):
    """Queries and keys without heads, and a block that reads a trunk through its own norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.bn, self.conv = nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, padding=1)
        self.query, self.key, self.value = nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(16, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = (x + self.conv(self.bn(x).relu())).flatten(2).transpose(1, 2)
        weights = (self.query(x) @ self.key(x).transpose(1, 2)).softmax(-1)
        return self.head((weights @ self.value(x)).relu().mean(1))


def test_units_that_cannot_be_added_up_are_silenced() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, 8, 8)
    model = channel_selection(PreActivation().eval(), inputs)
    graph = capture(model, inputs)
    prunable = {g.id for g in graph.groups.prunable}
    added = mergeable(graph, live_tensors(model)) & prunable
    left = prunable - added
    assert added == {"value"}
    assert left == {"bn.select", "query"}
    data = [(torch.randn(4, 3, 8, 8), torch.randint(5, (4,))) for _ in range(4)]
    problem = Problem(model, inputs, Budget(macs=0.7), data=data, training=TRAINING, round_to=1)
    outcome = Ascp().run(problem)
    assert left | added <= set(outcome.plan.removed)
    assert verify(outcome.model, outcome.plan, inputs).exact
    assert torch.allclose(outcome.small().eval()(inputs), outcome.model.eval()(inputs), atol=1e-5)
