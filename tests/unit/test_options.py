from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from billhook.errors import InputError
from billhook.options import Configurable, Number, OneOf, OrAuto, configure, describe, option


@dataclass(frozen=True)
class Saw(Configurable):
    teeth: int = option(10, Number(1, integer=True), "how many")
    angle: float = option(0.5, Number(0, 1), "how steep")
    cut: str = option("cross", OneOf("cross", "rip"), "which way")


def test_defaults_are_valid_and_options_replace_them() -> None:
    assert configure(Saw, {}, what="saw") == Saw(10, 0.5, "cross")
    assert configure(Saw, {"angle": 1, "cut": "rip"}, what="saw") == Saw(10, 1, "rip")


@pytest.mark.parametrize(
    ("name", "value", "range_"),
    [
        ("teeth", 0, "an integer of at least 1"),
        ("teeth", 2.5, "an integer of at least 1"),
        ("teeth", True, "an integer of at least 1"),
        ("teeth", "10", "an integer of at least 1"),
        ("angle", 1.01, "a number of at least 0 and at most 1"),
        ("angle", float("nan"), "a number of at least 0 and at most 1"),
        ("angle", None, "a number of at least 0 and at most 1"),
        ("cut", "diagonal", "one of 'cross', 'rip'"),
        ("cut", ["rip"], "one of 'cross', 'rip'"),
    ],
)
def test_a_wrong_value_names_option_and_range(name: str, value: Any, range_: str) -> None:
    with pytest.raises(InputError, match=f"the saw: option {name}=.* must be {range_}"):
        configure(Saw, {name: value}, what="the saw")


def test_a_value_is_checked_without_configure_too() -> None:
    with pytest.raises(InputError, match="Saw: option angle=3 must be a number"):
        Saw(angle=3)


def test_an_unknown_option_lists_close_names() -> None:
    with pytest.raises(InputError, match="the saw has no option 'tooth'; did you mean 'teeth'"):
        configure(Saw, {"tooth": 3}, what="the saw")


def test_a_kind_without_options_says_so() -> None:
    @dataclass(frozen=True)
    class Stick(Configurable):
        pass

    with pytest.raises(InputError, match="has no option 'x'; it has no options"):
        configure(Stick, {"x": 1}, what="the stick")


def test_describe_tells_purpose_range_and_default() -> None:
    assert describe(Saw)["angle"] == "how steep; a number of at least 0 and at most 1, default 0.5"


def test_a_number_or_auto() -> None:
    rule = OrAuto(1, integer=True)
    assert all(rule.accepts(value) for value in (1, 7, "auto"))
    assert not any(rule.accepts(value) for value in (0, 1.5, True, "often", None))
    assert str(rule) == "an integer of at least 1, or 'auto'"
