"""Attributes that mirror shapes follow, and none that only happens to hold the same number."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from billhook.graph import ExportedNetwork, apply, capture, make_plan
from billhook.graph.constants import Kept
from billhook.graph.patch import Change, changes, patch_sizes
from tests.networks import build
from tests.oracle import prune_half, random_plan, randomize


class Heads(nn.Module):
    """Reads its sizes from attributes; `window` and `patch_size` are equal to them by accident."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.window, self.patch_size = 4, 2, 4, 8
        self.sizes = (8, 8)
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (
            f(x).view(b, t, self.num_heads, self.head_dim).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        x = (q @ k.mT).softmax(-1) @ v
        return self.out(x.transpose(1, 2).reshape(b, t, -1))


def test_heads_are_patched_and_bystanders_are_not() -> None:
    small = prune_half(randomize(Heads()), torch.randn(2, 5, 8)).small
    assert isinstance(small, Heads)
    assert (small.num_heads, small.head_dim, small.window, small.patch_size) == (2, 2, 4, 8)
    assert small.sizes == (8, 8)


class Merged(nn.Module):
    """Reshapes to its full width by an attribute."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        setattr(self, name, 12)
        self.conv, self.head = nn.Conv2d(3, 12, 1), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).permute(0, 2, 3, 1).reshape(-1, 16, getattr(self, self.name))
        return self.head(x.mean(1))


def test_attributes_of_any_name_are_tried_last() -> None:
    for name in ("inner_dim", "width", "c", "quux"):
        small = prune_half(randomize(Merged(name)), torch.randn(2, 3, 4, 4)).small
        assert isinstance(small, Merged)
        assert getattr(small, name) == 6


class Splitting(nn.Module):
    """The parts of a split keep different numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.split_sizes = [6, 6]
        self.whole, self.a, self.b = nn.Linear(3, 12), nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.whole(x).relu().split(self.split_sizes, -1)
        return self.a(a) + self.b(b)


def test_equal_parts_may_become_unequal() -> None:
    model, x = randomize(Splitting()), torch.randn(2, 3)
    graph = capture(model, x)
    plan = make_plan(graph, {"whole[0:6]": np.arange(6) < 2, "whole[6:12]": np.arange(6) < 5})
    small = apply(model, plan)
    assert isinstance(small, Splitting)
    assert small.split_sizes == [2, 5]
    assert model.split_sizes == [6, 6]
    assert small(x).shape == (2, 2)


class Counting(nn.Module):
    """The same attribute is a size and a number of repetitions: patching it would be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.num = 4
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).view(-1, self.num)
        for _ in range(self.num):
            x = (x * 1.1).relu()
        return self.b(x)


def test_an_attribute_with_two_meanings_never_makes_a_wrong_network() -> None:
    assert isinstance(prune_half(randomize(Counting()), torch.randn(5, 3)).small, ExportedNetwork)


def test_changes_name_the_layer_and_both_numbers() -> None:
    model, x = randomize(Heads()), torch.randn(2, 5, 8)
    graph = capture(model, x)
    plan = random_plan(graph)
    found = set(changes(graph.program, Kept(graph.flow, graph.partition, graph.keep_list(plan))))
    assert found == {Change("", 4, 2)}


def test_booleans_and_private_attributes_are_left_alone() -> None:
    module = Counting()
    del module.num
    module.dim, module.use_dim, module._dim, module.dims = 1, True, 1, [1, True]
    patch_sizes(module, [Change("", 1, 5)], likely_only=False)
    assert (module.dim, module.use_dim, module._dim, module.dims) == (5, True, 1, [1, True])


def test_layers_of_torch_show_their_new_sizes() -> None:
    model, x = build("depthwise_squeeze")
    text = repr(apply(model, random_plan(capture(model, x))))
    assert "Conv2d(16, 16, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=16, bias=False)" in text
    assert "BatchNorm2d(16" in text
    assert "Linear(in_features=8, out_features=5, bias=True)" in text
