from __future__ import annotations

import numpy as np
import pytest

from billhook.graph.groups import ChannelGroup, Member, Reason
from billhook.report import cost_table, groups_table, latency_table, methods_table, weights_table
from billhook.results import Cost, Measurement
from tests.unit.report.fabricated import golden, text_of


def member(tensor: str, role: str, size: int = 16, width: int = 1, axis: int = 0) -> Member:
    return Member(tensor, axis, role, np.arange(size * width).reshape(size, width))


GROUPS = [
    ChannelGroup(
        "stem.conv",
        16,
        (
            member("layer1.conv.weight", "in", axis=1),
            member("stem.conv.weight", "out"),
            member("stem.norm.weight", "through"),
            member("stem.norm.bias", "through"),
            member("stem.norm.running_mean", "through"),
        ),
    ),
    ChannelGroup(
        "attention.heads",
        4,
        (member("attention.qkv.weight", "out", 4, 16),),
        mixed=Reason("softmax over heads"),
    ),
    ChannelGroup(
        "classifier",
        10,
        (member("classifier.weight", "out", 10),),
        frozen=Reason("output of the network", "linear", "net.py:42"),
    ),
]


def test_groups_name_producers_first_and_why_they_are_frozen() -> None:
    assert text_of(groups_table(GROUPS), width=120) == golden("groups.txt")


def test_groups_of_a_plan_show_what_stays() -> None:
    assert text_of(groups_table(GROUPS, {"stem.conv": 12}), width=120) == golden("groups_kept.txt")


def test_costs_of_one_network_and_of_two() -> None:
    before, after = (
        Cost(4_089_000_000, 25_557_032, 102_228_128, 6_422_528),
        Cost(1_000_000_000, 9_000_000, 0, 6_422_528),
    )
    assert text_of(cost_table(before)) == golden("cost.txt")
    assert text_of(cost_table(before, after)) == golden("cost_both.txt")
    encoded = text_of(cost_table(before, after, encoded=True))
    assert "Weights, encoded" in encoded
    assert "Weights in memory" not in encoded


def test_capabilities_have_the_keys_as_columns() -> None:
    rows = [
        {"name": "l2", "kind": "criterion", "needs_data": False, "trains": False, "notes": None},
        {
            "name": "taylor",
            "kind": "criterion",
            "needs_data": True,
            "trains": False,
            "source": "Molchanov 2019",
        },
    ]
    assert text_of(methods_table(rows)) == golden("methods.txt")


def latencies() -> dict[str, Measurement]:
    return {
        "original": Measurement(0.00812, "s", 60, 0.00798, 0.00891),
        "compressed": Measurement(0.00352, "s", 60, 0.00347, 0.00401),
        "[red]single": Measurement(0.004, "s"),
    }


def test_latencies_alone_and_against_a_baseline() -> None:
    assert text_of(latency_table(latencies())) == golden("latency.txt")
    assert text_of(latency_table(latencies(), "original")) == golden("latency_against.txt")


@pytest.mark.parametrize("name", ["\x1b[2J", "[bold]x[/bold]"])
def test_names_command_nothing(name: str) -> None:
    table = groups_table([ChannelGroup(name, 1, (member(name, "out", 1),), frozen=Reason(name))])
    assert text_of(table, width=160).count(name.replace("\x1b", "\\x1b")) == 3


def test_weights_that_have_a_pattern_are_rows() -> None:
    row = {
        "tensor": "conv.weight",
        "shape": [8, 4, 3, 3],
        "pattern": "4x1",
        "weights": 288,
        "kept": 29,
        "sparsity": 259 / 288,
    }
    lines = text_of(weights_table([row, {**row, "tensor": "\x1b[31m"}])).splitlines()
    assert lines[0].split() == ["Weight", "Shape", "Pattern", "Weights", "Kept", "Zero"]
    assert lines[2].split() == ["conv.weight", "8×4×3×3", "4x1", "288", "29", "89.9", "%"]
    assert "\x1b" not in lines[3]
