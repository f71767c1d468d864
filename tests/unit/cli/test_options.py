from __future__ import annotations

from pathlib import Path

import pytest

from billhook.cli.options import changes, key_values
from billhook.errors import InputError
from billhook.recipe import Change


def test_values_are_toml_or_else_text() -> None:
    texts = [
        "width=16",
        "scale=0.5",
        "deep=true",
        "widths=[16, 32]",
        "kind=B",
        "text='16'",
        "path=a=b",
        "empty=",
    ]
    found = {
        path[-1]: value for path, (_, value) in key_values(("model", "args"), "--model-arg", texts).items()
    }
    assert found == {
        "width": 16,
        "scale": 0.5,
        "deep": True,
        "widths": [16, 32],
        "kind": "B",
        "text": "16",
        "path": "a=b",
        "empty": "",
    }


def test_a_value_cannot_add_another_key() -> None:
    found = key_values(("model", "args"), "--model-arg", ["a=1\nb = 2"])
    assert found == {("model", "args", "a"): ("--model-arg a", "1\nb = 2")}


@pytest.mark.parametrize("text", ["16", "=16", ""])
def test_what_is_no_pair_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="write KEY=VALUE"):
        key_values(("model", "args"), "--model-arg", [text])


def test_what_was_left_out_changes_nothing() -> None:
    given = changes(
        {
            ("a",): ("--a", None),
            ("b",): ("--b", []),
            ("c",): ("--c", 0),
            ("d",): ("--d", False),
            ("e",): ("--e", Path("x")),
        }
    )
    assert given == [Change(("c",), 0, "--c"), Change(("d",), False, "--d"), Change(("e",), "x", "--e")]
