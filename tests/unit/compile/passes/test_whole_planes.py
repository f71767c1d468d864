"""Planes that are read together lie at even distances, or are copied."""

from __future__ import annotations

from torch import Tensor

from billhook.compile.lower import lower
from billhook.compile.passes.whole_planes import whole_planes
from tests.unit.compile.exactness import Function, assert_equal, image, kinds


def test_slices_are_read_where_they_lie() -> None:
    model = Function(lambda x: x[:, 1:3].transpose(1, 3))
    network = lower(model, image())
    assert kinds(whole_planes(network)) == kinds(network) == ["select", "rearrange"]


def test_planes_in_any_order_are_copied_before_they_become_columns() -> None:
    def forward(x: Tensor) -> Tensor:
        return x[:, [0, 1, 3, 2]].unflatten(1, (2, 2)).permute(0, 1, 3, 4, 2)

    network = whole_planes(lower(Function(forward), image()))
    assert kinds(network) == ["select", "activate", "rearrange"]
    assert_equal(network, Function(forward), image())


def test_planes_in_any_order_stay_where_rows_alone_choose_them() -> None:
    model = Function(lambda x: x[:, [2, 0]].transpose(2, 3))
    network = whole_planes(lower(model, image()))
    assert kinds(network) == ["select", "rearrange"]


def test_weights_of_a_product_are_copied_where_groups_differ() -> None:
    def forward(x: Tensor) -> Tensor:
        keys = x[:, [0, 1, 3, 2]].flatten(2).unflatten(1, (2, 2))
        return keys.transpose(2, 3) @ keys

    network = whole_planes(lower(Function(forward), image()))
    assert "activate" in kinds(network)
    assert_equal(network, Function(forward), image())
