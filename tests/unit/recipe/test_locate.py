from __future__ import annotations

import tomllib

import pytest

from billhook.recipe.locate import key_lines, line_of

TEXT = '''\
# [model] in a comment is no table
name = "a # no comment, [no table]"
"quoted.key" = 1
a . b = 2

[model]
name = """
[data]
x = 1
"""
literal = \'\'\'
[budget]\'\'\'
input = [
    "1x3",  # first
    "1x4",
    { inside = 1 },
]
args = { width = 16, deep = { x = [1,
  2] } }
when = 1979-05-27 07:32:00

[[step]]
kind = 1
[[step]]
kind = 2
[step.more]
x = 1.5
[ "odd name" . sub ]
y = 1
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("name",), 2),
        (("quoted.key",), 3),
        (("a",), 4),
        (("a", "b"), 4),
        (("model",), 6),
        (("model", "name"), 7),
        (("model", "literal"), 11),
        (("model", "input"), 13),
        (("model", "input", 0), 14),
        (("model", "input", 1), 15),
        (("model", "input", 2, "inside"), 16),
        (("model", "args", "width"), 18),
        (("model", "args", "deep", "x", 1), 19),
        (("model", "when"), 20),
        (("step", 0, "kind"), 23),
        (("step", 1, "kind"), 25),
        (("odd name", "sub", "y"), 29),
    ],
)
def test_a_key_is_found_on_its_line(path: tuple[str | int, ...], line: int) -> None:
    tomllib.loads(TEXT)
    assert key_lines(TEXT)[path] == line


def test_text_inside_strings_and_comments_is_no_key() -> None:
    lines = key_lines(TEXT)
    assert ("data",) not in lines
    assert ("budget",) not in lines


def test_windows_line_ends_count_once() -> None:
    assert key_lines("a = 1\r\nb = 2\r\n[c]\r\nd = 3\r\n")[("c", "d")] == 4


def test_a_missing_key_is_reported_at_the_table_around_it() -> None:
    lines = key_lines("x = 1\n[model]\nname = 'a'\n")
    assert line_of(lines, ("model", "weights")) == 2
    assert line_of(lines, ("data",)) == 1


@pytest.mark.parametrize(
    "text", ["", "[", "[[", "=", "a", "a =", "a = [", "a = {", "{}", "]]", "a = [}", '"']
)
def test_broken_text_ends_the_scan(text: str) -> None:
    key_lines(text)
