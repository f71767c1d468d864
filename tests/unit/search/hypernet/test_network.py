"""A PruningNet that generates nothing yet is the network itself, cut to its first channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from billhook import models
from billhook.graph import apply
from billhook.graph.slicing import named_tensors
from billhook.search.hypernet.network import PruningNet
from billhook.search.problem import SearchProblem
from tests.networks import build
from tests.oracle import randomize
from tests.search import problem_of

SMALL = ("plain", "residual", "concat", "depthwise_squeeze", "grouped", "flatten", "shuffle", "attention")
LARGE = {
    "resnet-20": {"width": 8, "in_channels": 1, "stem_stride": 2},
    "small-vgg": {"in_channels": 1},
    "mobilenet-v2": {"in_channels": 1, "width": 0.25},
}


def _network(name: str) -> tuple[nn.Module, torch.Tensor]:
    if name in LARGE:
        x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        return randomize(models.build(name, **LARGE[name]).eval(), example_inputs=x), x
    return build(name)


def _pruning_net(problem: SearchProblem, *, limit: int = 2**22, spread: float = 0.0) -> PruningNet:
    torch.manual_seed(0)
    tensors = dict(named_tensors(problem.model))
    return PruningNet(problem.space, tensors, hidden=8, limit=limit, spread=spread)


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_crop_equivalence(name: str) -> None:
    model, x = _network(name)
    problem = problem_of(model, x[:1], criterion="first")
    row = problem.space.nearest(np.linspace(0.4, 0.8, len(problem.space.genes)))[0]
    plan = problem.space.plan(row, model)
    assert plan.removed
    assert all(k[: k.sum()].all() for k in plan.keep.values())  # the first ones
    with torch.no_grad():
        whole, small = model(x), apply(model, plan)(x)
        for limit in (2**22, 200):
            network = _pruning_net(problem, limit=limit).eval()
            torch.testing.assert_close(network(x), whole, rtol=1e-4, atol=1e-5)
            network.row = row
            torch.testing.assert_close(network(x), small, rtol=1e-4, atol=1e-5)


def test_the_order_of_the_space_says_which_channels_are_the_first() -> None:
    model, x = build("residual")
    problem = problem_of(model, x[:1], criterion="l1")
    network = _pruning_net(problem).eval()
    network.row = problem.space.lowest
    small = apply(model, problem.space.plan(network.row, model))
    with torch.no_grad():
        torch.testing.assert_close(network(x), small(x), rtol=1e-4, atol=1e-5)


def test_generated_weights_depend_on_the_widths_of_their_layer_alone() -> None:
    problem = problem_of(*build("residual"))
    network, space = _pruning_net(problem, spread=1.0), problem.space
    narrow = space.highest.copy()
    narrow[[g.target for g in space.genes].index("inner1")] = 0
    whole, other = network.tensors(space.highest), network.tensors(narrow)
    differing = {n for n in whole if not torch.equal(whole[n], other[n])}
    assert differing == {"inner1.weight", "outer1.weight"}


def test_a_step_trains_generators_and_all_that_is_not_generated() -> None:
    model, x = build("residual")
    network = _pruning_net(problem_of(model, x[:1])).train()
    network.row = network.space.lowest
    network(x).square().sum().backward()
    gradients = {n: p.grad for n, p in network.named_parameters()}
    assert gradients.keys() >= {"plain.bn.weight", "plain.project.bias", "plain.head.bias"}
    silent = [n for n, g in gradients.items() if g is None or not g.any()]
    assert not [n for n in silent if not n.endswith(("first.weight", "first.bias"))]  # spread 0: Q is 0


def test_training_uses_the_statistics_of_the_batch_and_keeps_none() -> None:
    model, x = build("plain")
    network = _pruning_net(problem_of(model, x[:1])).train()
    before = {n: b.clone() for n, b in network.named_buffers()}
    first = network(x)
    for buffer in network.buffers():
        buffer.add_(3)
    assert torch.equal(network(x), first)
    assert all(torch.equal(b, before[n] + 3) for n, b in network.named_buffers())


def test_what_is_factorised_is_told() -> None:
    problem = problem_of(*build("residual"))
    assert _pruning_net(problem).factorised == ()
    found = _pruning_net(problem, limit=8 * 16 * 3 * 9).factorised  # as large as the stem's
    assert {*found} == {f"{n}.weight" for n in ("inner1", "outer1", "inner2", "outer2", "project")}
