from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from billhook.errors import InputError
from billhook.graph.weights import WeightLayer
from billhook.sparse.mapping import legal
from billhook.sparse.mapping.candidates import reach
from billhook.sparse.mapping.environment import features
from billhook.sparse.mapping.latency_table import KINDS, kind_of, outputs_of_group
from tests.unit.sparse.mapping.made_layers import conv, linear


def _texts(layer: WeightLayer, **options: Any) -> list[str]:
    return [str(p) for p in legal(layer, **options)]


def test_a_depthwise_convolution_has_no_pattern() -> None:
    assert legal(conv("dw", 64, 64, groups=64)) == ()


def test_a_3x3_convolution_may_get_kernel_patterns_or_blocks() -> None:
    names = [p.name for p in legal(conv("a", 64, 64))]
    assert names[0] == "kernel_pattern"
    assert set(names[1:]) == {"block_punched"}


@pytest.mark.parametrize("kernel", [1, 5, 7])
def test_other_convolutions_get_blocks(kernel: int) -> None:
    assert {p.name for p in legal(conv("a", 64, 64, kernel))} == {"block_punched"}


def test_a_linear_layer_gets_blocks_of_its_own() -> None:
    patterns = legal(linear("fc", 64, 64))
    assert {p.name for p in patterns} == {"block"}
    units = [p.units(torch.ones(64, 64, 1)).numel() for p in patterns]
    assert units == [1024, 512, 256, 128, 64]  # columns of 4, 8, 16, 32 and all outputs: none twice


def test_sizes_are_sorted_and_end_with_all_outputs() -> None:
    patterns = legal(conv("a", 48, 64, 1), sizes=[(8, 4), (4, 1), (0, 1), (8, 1), (4, 4)])
    sizes = [(p.rows, p.columns) for p in patterns]  # type: ignore[attr-defined]
    assert sizes == [(4, 1), (8, 1), (4, 4), (8, 4), (48, 1)]


def test_blocks_larger_than_the_layer_are_left_out() -> None:
    sizes = [(p.rows, p.columns) for p in legal(conv("stem", 8, 3, 7))]  # type: ignore[attr-defined]
    assert sizes == [(4, 1), (8, 1)]


def test_blocks_stay_within_the_groups_of_a_convolution() -> None:
    layer = conv("a", 48, 48, 5, groups=4)  # 12 outputs in a group
    sizes = [(p.rows, p.columns) for p in legal(layer)]  # type: ignore[attr-defined]
    assert sizes == [(4, 1), (12, 1), (4, 4)]


def test_a_transposed_convolution_in_groups_has_no_pattern() -> None:
    layer = WeightLayer("up.weight", "up", "conv", (48, 12, 3, 3), (3, 3), (2, 2), 4, True, 64)
    assert legal(layer) == ()
    assert outputs_of_group(layer) == 12
    assert kind_of(layer) == "conv"
    assert {p.name for p in legal(replace(layer, groups=1))} == {"kernel_pattern", "block_punched"}
    assert kind_of(replace(layer, shape=(48, 1, 3, 3), groups=48)) == "depthwise"


def test_all_inputs_of_a_grouped_layer_count() -> None:
    plain = conv("a", 48, 48, groups=4)
    layer = WeightLayer("up.weight", "up", "conv", (48, 12, 3, 3), (3, 3), (1, 1), 4, True, plain.positions)
    mine, theirs = features(layer), features(plain)
    assert mine[len(KINDS) :] == pytest.approx(theirs[len(KINDS) :])


@pytest.mark.parametrize("size", [(0, 0), (4, 0), (-1, 4), (4,), (4.0, 1), "4x1", (0, 4)])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(InputError, match="is no block; write"):
        legal(conv("a", 64, 64, 1), sizes=[size])


def test_reach_is_that_of_the_pattern() -> None:
    for layer in (conv("a", 10, 7), linear("b", 10, 7)):
        for pattern in legal(layer):
            assert reach(pattern, layer.view) == pytest.approx(pattern.sparsities(layer.view))
