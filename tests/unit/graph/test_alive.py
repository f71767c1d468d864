"""Weights under which every layer matters."""

from __future__ import annotations

import torch
from torch import nn

from billhook.graph.alive import alive_weights
from tests.networks import build


def test_dead_networks_come_to_life() -> None:
    model, x = build("residual")
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    weights = alive_weights(dict(model.named_parameters()) | dict(model.named_buffers()))
    live = torch.func.functional_call(model, weights, x)
    assert live.isfinite().all()
    assert live.std() > 0.01
    assert (model(x) == 0).all()


def test_the_same_weights_each_time_and_no_trace_in_the_random_state() -> None:
    tensors = dict(nn.Linear(4, 3).named_parameters())
    state = torch.get_rng_state()
    first, second = alive_weights(tensors), alive_weights(tensors)
    assert all(torch.equal(first[n], second[n]) for n in tensors)
    assert torch.equal(torch.get_rng_state(), state)


def test_variances_and_scales_are_positive_and_integers_are_kept() -> None:
    norm = nn.BatchNorm2d(8)
    norm.num_batches_tracked.fill_(7)
    weights = alive_weights(dict(norm.named_parameters()) | dict(norm.named_buffers()))
    assert weights["running_var"].min() >= 0.5
    assert weights["weight"].min() >= 0.5
    assert weights["num_batches_tracked"].item() == 7
    assert weights["num_batches_tracked"] is not norm.num_batches_tracked
