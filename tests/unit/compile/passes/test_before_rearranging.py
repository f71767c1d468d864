"""Scales and activations come before pixels are moved."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from billhook.compile.lower import lower
from billhook.compile.passes import run_passes
from billhook.compile.passes.before_rearranging import before_rearranging
from tests.unit.compile.exactness import Function, assert_equal, image, kinds


def test_activations_and_scales_change_places_with_a_shuffle() -> None:
    model = Function(lambda x: functional.pixel_shuffle(x, 2).relu() * torch.tensor([[2.0]]))
    network = lower(model, image(8))
    assert kinds(network) == ["rearrange", "activate", "affine"]
    moved = before_rearranging(network)
    assert kinds(moved) == ["activate", "affine", "rearrange"]
    assert_equal(moved, model, image(8))


def test_what_others_read_stays() -> None:
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        shuffled = functional.pixel_shuffle(x, 2)
        return shuffled, shuffled.relu()

    network = lower(Function(forward), image(8))
    assert kinds(before_rearranging(network)) == ["rearrange", "activate"]


def test_scales_of_what_becomes_pixels_of_one_plane_stay() -> None:
    def forward(x: Tensor) -> Tensor:
        return functional.max_pool2d(x.transpose(1, 2), 1) * torch.arange(1.0, 7.0)[:, None, None]

    network = before_rearranging(lower(Function(forward), image()))
    assert kinds(network)[0] == "rearrange"
    assert_equal(network, Function(forward), image())


def test_a_convolution_takes_over_what_came_behind_its_shuffle() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.PixelShuffle(2), nn.BatchNorm2d(2), nn.ReLU()).eval()
    network = run_passes(lower(model, image()))
    assert kinds(network)[0] == "convolution"
    assert "affine" not in kinds(network)
    assert_equal(network, model, image())
