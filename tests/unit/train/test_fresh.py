"""Weights drawn anew: as at birth, the same for the same seed, and what nobody draws is named."""

from __future__ import annotations

import torch
from torch import nn

from billhook.train.fresh import draw_anew_


class _Positions(nn.Module):
    """A layer, and a parameter that no module knows how to draw."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64)
        self.positions = nn.Parameter(torch.full((3,), 7.0))


def test_layers_draw_their_weights_as_when_they_are_made() -> None:
    model = nn.Sequential(nn.Conv2d(8, 64, 3), nn.BatchNorm2d(64))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(9.0)
    assert draw_anew_(model, 0) == []
    bound = 1 / (8 * 9) ** 0.5  # of PyTorch's own rule
    assert model[0].weight.abs().max() <= bound
    assert model[0].weight.std() > bound / 3
    assert torch.equal(model[1].weight, torch.ones(64))


def test_the_same_seed_draws_the_same_and_disturbs_nobody() -> None:
    twins = [nn.Linear(8, 8) for _ in range(3)]
    before = torch.random.get_rng_state()
    for twin, seed in zip(twins, (1, 1, 2), strict=True):
        draw_anew_(twin, seed)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(twins[0].weight, twins[1].weight)
    assert not torch.equal(twins[0].weight, twins[2].weight)


def test_what_nobody_draws_is_named_and_left_alone() -> None:
    model = _Positions()
    assert draw_anew_(model, 0) == ["positions"]
    assert torch.equal(model.positions, torch.full((3,), 7.0))
