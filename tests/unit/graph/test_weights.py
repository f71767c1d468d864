"""Weights of layers: their outputs and inputs, the names they go by, what may be done with them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from billhook.graph import Scope, capture
from billhook.graph.patterns import parse_pattern, patterns
from billhook.graph.structure import Structure, viewed
from billhook.graph.weights import WeightLayer


def layer_of(module: nn.Module, channels: int = 8) -> WeightLayer:
    (layer,) = capture(nn.Sequential(module), torch.randn(1, channels, 5, 5)).weights
    return layer


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
@pytest.mark.parametrize("outputs", [8, 16])
def test_a_transposed_convolution_counts_like_its_mirror_image(groups: int, outputs: int) -> None:
    up = layer_of(nn.ConvTranspose2d(8, outputs, 3, groups=groups))
    down = layer_of(nn.Conv2d(8, outputs, 3, groups=groups))
    assert up.view == down.view == (outputs, 8 // groups, 9)
    assert up.depthwise == down.depthwise == (groups == 8)
    assert up.macs == 8 * outputs // groups * 9 * 25


def test_a_transposed_convolution_in_groups_loses_single_weights_only() -> None:
    model, x = nn.Sequential(nn.ConvTranspose2d(8, 16, 3, groups=4)), torch.randn(1, 8, 5, 5)
    (layer,) = capture(model, x).weights
    for name in patterns.names():
        why = layer.refusal(patterns.get(name)())
        assert (
            why is None if name == "unstructured" else "in 4 groups can only lose single weights" in str(why)
        )
    weight, pattern = model[0].weight.detach(), parse_pattern("unstructured")
    s = Structure(pattern, layer.shape, pattern.choose(viewed(weight, transposed=True), 0.5), True)
    assert weight[s.mask].abs().min() > weight[~s.mask].abs().max()


def test_other_layers_refuse_what_the_pattern_refuses() -> None:
    up, grouped = layer_of(nn.ConvTranspose2d(8, 6, 3)), layer_of(nn.Conv2d(8, 6, 3, groups=2))
    assert up.refusal(parse_pattern("3x1:remainder=refuse")) is None
    assert (
        up.refusal(parse_pattern("4x1:remainder=refuse"))
        == "blocks of 4×1 do not divide 6 outputs × 8 inputs"
    )
    assert grouped.refusal(parse_pattern("3x1")) is None
    assert "reach over the 2 groups" in str(grouped.refusal(parse_pattern("4x1")))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.s = nn.Sequential()
        self.s.a, self.s.b, self.s.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.s.b.weight = self.s.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.s(x)


def test_a_shared_weight_has_all_names_of_both_layers() -> None:
    shared, own = capture(Tied(), torch.randn(2, 4)).weights
    assert shared.tensor == "s.a.weight"
    assert shared.positions == 4
    assert shared.names == {"s.a", "s.b", "s.a.weight", "s.b.weight"}
    assert own.names == {"s.c", "s.c.weight"}
    for name in shared.names:
        assert Scope(include=(name,)).select_weights([shared, own]) == (shared,)
        assert Scope(exclude=(name,)).select_weights([shared, own]) == (own,)


def test_a_weight_goes_by_the_name_of_the_module_that_owns_it_and_of_the_one_that_uses_it() -> None:
    class Reads(nn.Module):
        def __init__(self, table: nn.Embedding) -> None:
            super().__init__()
            self.table = [table]

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.table[0].weight)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(7, 8)
            self.head = Reads(self.table)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.table(tokens))

    (layer,) = capture(Network(), torch.tensor([[1, 4, 2]])).weights
    assert layer.names == {"table.weight", "table", "head"}


def test_a_layer_that_is_used_twice_is_one() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.again = self.fc

        def forward(self, x: Tensor) -> Tensor:
            return self.again(self.fc(x).relu())

    (layer,) = capture(Twice(), torch.randn(2, 4)).weights
    assert layer.positions == 4
    assert layer.names == {"fc.weight", "fc", "again", "again.weight"}
