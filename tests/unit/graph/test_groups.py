"""The table of groups as a user reads it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from billhook.errors import NameNotFoundError
from billhook.graph import ChannelGroup, Groups, Member, Reason


def member(tensor: str, role: str, size: int = 4, width: int = 1) -> Member:
    return Member(tensor, 0, role, np.arange(size * width).reshape(size, width))  # type: ignore[arg-type]


GROUP = ChannelGroup("conv1", 4, (member("conv1.weight", "out"), member("fc.weight", "in", width=9)))
HELD = ChannelGroup(
    "fc", 4, (member("fc.weight", "out"),), Reason("model output", "output", "net.py:12: return x")
)


def test_groups_are_found_by_position_and_by_name() -> None:
    groups = Groups((GROUP, HELD))
    assert groups[0] is groups["conv1"] is GROUP
    assert list(groups) == [GROUP, HELD]
    assert len(groups) == 2
    assert groups[1:] == (HELD,)


def test_prunable_and_frozen_part_the_table() -> None:
    groups = Groups((GROUP, HELD))
    assert groups.prunable == (GROUP,)
    assert groups.frozen == (HELD,)


def test_an_unknown_name_suggests_close_ones() -> None:
    with pytest.raises(NameNotFoundError, match=r"unknown group 'conv2'; did you mean 'conv1'\?"):
        _ = Groups((GROUP, HELD))["conv2"]


def test_a_reason_shows_its_line() -> None:
    assert str(HELD.frozen) == "model output (net.py:12: return x)"
    assert str(Reason("model output")) == "model output"


def test_the_width_is_that_of_the_producing_axis() -> None:
    assert GROUP.width == 1
    heads = ChannelGroup("qkv", 4, (member("qkv.weight", "out", width=8), member("p.weight", "in", width=2)))
    assert heads.width == 8


def test_a_group_becomes_plain_data() -> None:
    data = json.loads(json.dumps(HELD.to_dict()))
    assert data["frozen"] == "model output (net.py:12: return x)"
    assert data["prunable"] is False
    assert data["members"] == [{"tensor": "fc.weight", "axis": 0, "role": "out", "width": 1}]


def test_a_table_of_groups_can_be_printed() -> None:
    assert str(Groups((GROUP, HELD))).splitlines() == [
        "conv1: 4 units",
        "fc: 4 units; frozen: model output (net.py:12: return x)",
    ]
    assert repr(Groups((GROUP, HELD))) == "<Groups: 1 prunable, 1 frozen>"
