"""Weights under which every layer matters."""

from __future__ import annotations

import torch
from torch import nn

from billhook.graph.alive import enliven_
from tests.networks import build


def test_dead_networks_come_to_life() -> None:
    model, x = build("residual")
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert (model(x) == 0).all()
    enliven_(dict(model.named_parameters()) | dict(model.named_buffers()))
    assert model(x).isfinite().all()
    assert model(x).std() > 0.01


def test_the_same_weights_each_time_and_no_trace_in_the_random_state() -> None:
    first, second = (dict(nn.Linear(4, 3).named_parameters()) for _ in range(2))
    state = torch.get_rng_state()
    enliven_(first)
    enliven_(second)
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert torch.equal(torch.get_rng_state(), state)


def test_variances_and_scales_are_positive_and_integers_are_kept() -> None:
    norm = nn.BatchNorm2d(8)
    norm.num_batches_tracked.fill_(7)
    enliven_(dict(norm.named_parameters()) | dict(norm.named_buffers()))
    assert norm.running_var.min() >= 0.5
    assert norm.weight.min() >= 0.5
    assert norm.num_batches_tracked.item() == 7
