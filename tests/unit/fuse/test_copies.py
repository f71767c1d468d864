"""Copies of channels by number."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from billhook.fuse import ChannelCopy
from billhook.graph import capture

X = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))


def test_channels_are_copied_by_number() -> None:
    layer = ChannelCopy(torch.tensor([2, -1, 0, 2]), torch.ones(4))
    expected = torch.stack((X[:, 2], torch.zeros(2, 3, 3), X[:, 0], X[:, 2]), 1)
    assert torch.equal(layer(X), expected)


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 5), (1, 4, 3, 3), (2, 4, 2, 3, 2), (0, 4, 3, 3)])
def test_images_of_every_rank(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    layer = ChannelCopy(torch.tensor([3, -1]), torch.tensor([1.0, 1, 1, 2]))
    assert torch.equal(layer(x)[:, 0], 2 * x[:, 3])
    assert not layer(x)[:, 1].any()


def test_a_list_without_numbers_copies_nothing() -> None:
    assert ChannelCopy(torch.tensor([], dtype=torch.int64), torch.ones(4))(X).shape == (2, 0, 3, 3)
    none = ChannelCopy(torch.tensor([-1, -1]), torch.ones(0))
    assert torch.equal(none(X[:, :0]), torch.zeros(2, 2, 3, 3))


def test_nothing_is_zero_even_beside_infinite_values() -> None:
    layer = ChannelCopy(torch.tensor([-1, 0]), torch.ones(4))
    assert not layer(torch.full((1, 4, 2, 2), torch.inf))[:, 0].any()


def test_the_gate_scales_what_is_read() -> None:
    gate = torch.tensor([0.5, 1.0, 0.0, 2.0])
    layer = ChannelCopy(torch.tensor([3, 0, 2]), gate)
    expected = (X * gate.view(-1, 1, 1))[:, [3, 0, 2]]
    assert torch.equal(layer(X), expected)


def test_gradients_go_where_the_copies_come_from() -> None:
    x = X.clone().requires_grad_()
    ChannelCopy(torch.tensor([2, -1, 2, 0]), torch.ones(4))(x).sum().backward()
    assert x.grad is not None
    assert x.grad[0, :, 0, 0].tolist() == [1, 0, 2, 0]


def test_it_holds_no_parameters_and_moves_like_a_layer() -> None:
    layer = ChannelCopy(torch.arange(4), torch.ones(4), torch.rand(4))
    assert not list(layer.parameters())
    assert list(layer.state_dict()) == ["index", "gate", "magnitude"]
    assert "magnitude" not in ChannelCopy(torch.arange(4), torch.ones(4)).state_dict()
    assert layer.double().index.dtype == torch.int64
    assert layer(X.double()).dtype == torch.float64
    assert torch.equal(copy.deepcopy(layer)(X.double()), X.double())


def test_it_says_how_much_it_copies() -> None:
    assert repr(ChannelCopy(torch.tensor([2, -1, 0]), torch.ones(4))) == "ChannelCopy(2 of 3 channels)"


def test_it_costs_no_multiplication() -> None:
    plain = nn.Sequential(nn.Conv2d(4, 6, 1), nn.Conv2d(6, 2, 1))
    copying = nn.Sequential(
        nn.Conv2d(4, 6, 1), ChannelCopy(torch.arange(6), torch.ones(6)), nn.Conv2d(6, 2, 1)
    )
    assert capture(copying, X).costs.cost().macs == capture(plain, X).costs.cost().macs
    assert capture(copying, X).costs.cost().params == capture(plain, X).costs.cost().params
