"""Options of fusion."""

from __future__ import annotations

from typing import Any

import pytest

from billhook.errors import InputError
from billhook.fuse import Fusion
from billhook.fuse.fuse import ORDER
from billhook.fuse.options import FOLDING, OPERATORS
from billhook.graph.fusions import passes
from billhook.options import Words, describe


def test_by_default_everything_is_rewritten() -> None:
    fusion = Fusion()
    assert (fusion.level, fusion.operators, fusion.add_form, fusion.copies) == (
        "aggressive", OPERATORS, "chain", "symbolic"
    )  # fmt: skip
    assert all(fusion.allows(operator, "any.block") for operator in OPERATORS)


def test_patterns_of_blocks() -> None:
    fusion = Fusion(include=("layer1.*", "layer2.0"), exclude=("*.1",))
    assert [b for b in ("layer1.0", "layer1.1", "layer2.0", "layer3.0") if fusion.allows("concat", b)] == [
        "layer1.0", "layer2.0"
    ]  # fmt: skip


def test_operators_that_are_not_named_are_left_alone() -> None:
    fusion = Fusion(operators=("batch_norm",))
    assert fusion.allows("batch_norm", "a")
    assert not fusion.allows("add_identity", "a")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "extreme"}, "option level='extreme' must be one of 'none', 'conservative', 'aggressive'"),
        (
            {"operators": ("pool",)},
            r"option operators=\('pool',\) must be a tuple of words out of batch_norm",
        ),
        ({"operators": "concat"}, "option operators='concat' must be a tuple of words"),
        ({"include": "layer1"}, "option include='layer1' must be a tuple of words"),
        ({"exclude": (3,)}, r"option exclude=\(3,\) must be a tuple of words"),
        ({"add_form": "tree"}, "option add_form='tree' must be one of"),
        ({"copies": "none"}, "option copies='none' must be one of"),
        ({"keep_if": "faster"}, "option keep_if='faster' must be one of 'cost', 'always'"),
    ],
)
def test_wrong_values_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Fusion(**options)


def test_words_out_of_any_and_out_of_some() -> None:
    assert Words().accepts(("anything", "at all"))
    assert Words("a", "b").accepts(())
    assert not Words("a", "b").accepts(("a", "c"))
    assert not Words().accepts(["a"])
    assert str(Words()) == "a tuple of words"


def test_every_pass_runs_and_rewrites_what_options_name() -> None:
    assert sorted(ORDER) == passes.names()
    named = {operator for name in ORDER for operator in passes.get(name).operators}
    assert named == set(OPERATORS)
    folded = {o for name in ORDER if passes.get(name).kind == "fold" for o in passes.get(name).operators}
    assert set(FOLDING) <= folded


def test_every_option_is_described() -> None:
    assert describe(Fusion).keys() == {
        "level", "operators", "include", "exclude", "add_form", "copies", "keep_if"
    }  # fmt: skip
