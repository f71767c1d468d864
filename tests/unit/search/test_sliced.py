"""Sliced networks compute what the smaller modules do, let gradients through, and settle batch norms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import functional_call

from billhook.graph import apply
from billhook.graph.slicing import named_tensors
from billhook.search.sliced import live_tensors, settle_statistics_, sliced
from billhook.train import recalibrate_batchnorm
from tests.networks import build
from tests.search import batches, problem, problem_of

SOME = ("plain", "residual", "concat", "grouped", "depthwise_squeeze", "shuffle")


@pytest.mark.parametrize("name", SOME)
def test_a_sliced_network_computes_what_the_smaller_module_does(name: str) -> None:
    model, inputs = build(name)
    searched = problem_of(model, inputs, lowest=0.25)
    genes = searched.space.random(np.random.default_rng(0), 1)[0]
    plan = searched.space.plan(genes, model)
    network = sliced(searched.graph, plan, dict(named_tensors(model)))
    x = torch.randn(3, *inputs.shape[1:])
    torch.testing.assert_close(network(x), apply(model, plan)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("criterion", ["first", "l1"])
def test_gradients_reach_the_weights_that_stay_and_no_others(criterion: str) -> None:
    searched = problem("plain", criterion=criterion)
    space = searched.space
    genes = space.lowest
    plan = space.plan(genes, searched.model)
    tensors = dict(named_tensors(searched.model))
    network = sliced(searched.graph, plan, tensors)
    kept = searched.graph.kept(plan)
    trains = {n for n, _ in searched.model.named_parameters()}
    weights = {n: t.detach().clone().requires_grad_(n in trains) for n, t in tensors.items()}
    x = batches()[0][0]
    functional_call(network, live_tensors(weights, kept), (x,)).square().sum().backward()
    gradient = weights["conv1.weight"].grad
    assert gradient is not None
    stays = plan.keep["conv1"]
    assert (gradient[torch.from_numpy(stays)].flatten(1).abs().sum(1) > 0).all()
    assert not gradient[torch.from_numpy(~stays)].any()


def test_settled_statistics_are_those_of_the_module() -> None:
    searched = problem("residual")
    plan = searched.space.plan(searched.space.lowest, searched.model)
    network = sliced(searched.graph, plan, dict(named_tensors(searched.model)))
    module = apply(searched.model, plan)
    data = list(batches())
    assert settle_statistics_(network, [x for x, _ in data]) == len(data)
    recalibrate_batchnorm(module, data, len(data))
    expected = dict(module.named_buffers())
    for name, buffer in network.named_buffers():
        if "running" in name:
            torch.testing.assert_close(buffer, expected[name], rtol=1e-4, atol=1e-5)
    x = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(network(x), module(x), rtol=1e-4, atol=1e-5)


def test_a_network_without_batch_norm_has_nothing_to_settle() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 5))
    searched = problem_of(model, torch.randn(1, 8))
    plan = searched.space.plan(searched.space.lowest, model)
    network = sliced(searched.graph, plan, dict(named_tensors(model)))
    assert settle_statistics_(network, [torch.randn(4, 8)]) == 0
