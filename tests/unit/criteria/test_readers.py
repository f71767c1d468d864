from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from billhook.criteria._readers import Reader, readers
from billhook.graph.groups import Member
from tests.hand_made import member
from tests.networks import build


def test_convolutions_and_linear_layers_are_found_by_the_name_of_their_weight() -> None:
    found = readers(build("transposed")[0])
    assert found["down2.weight"] == Reader("down2", axis=1, spatial=2)
    assert found["up.weight"] == Reader("up", axis=0, spatial=2)
    assert readers(build("attention")[0])["project.weight"] == Reader("project", axis=1)


def test_a_weight_that_layers_share_is_listed_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert readers(model) == {"0.weight": Reader("0", axis=1)}


def test_a_layer_whose_input_nobody_sees_is_left_out() -> None:
    attention = nn.MultiheadAttention(8, 2)
    assert readers(nn.Sequential(attention, nn.Linear(8, 2))).keys() == {"1.weight"}


def test_an_index_of_a_grouped_convolution_is_one_channel_of_every_group() -> None:
    reader = Reader("conv", axis=1, spatial=2, groups=3)
    assert reader.positions(member("w", 1, "in", 2), length=2).tolist() == [[0, 2, 4], [1, 3, 5]]


def test_a_transposed_convolution_in_groups_has_all_channels_on_its_axis() -> None:
    reader = Reader("conv", axis=0, spatial=2, groups=3)
    m = Member("w", 0, "in", np.array([[1, 0], [2, 3]]))
    assert reader.positions(m, length=4).tolist() == [[1, 0], [2, 3]]


@pytest.mark.parametrize(
    ("spatial", "shape", "expected"),
    [
        (2, (5, 3, 4, 6), (5, 3, 4, 6)),
        (2, (3, 4, 6), (1, 3, 4, 6)),
        (1, (5, 3, 4), (5, 3, 4)),
        (0, (5, 3), (5, 3, 1)),
        (0, (3,), (1, 3, 1)),
        (0, (5, 7, 3), (5, 3, 7)),
        (0, (5, 4, 6, 3), (5, 3, 4, 6)),
    ],
)
def test_channels_come_second(spatial: int, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert Reader("layer", 1, spatial).channels_second(torch.zeros(shape)).shape == expected
