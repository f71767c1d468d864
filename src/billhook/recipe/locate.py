"""On which line of a TOML text is a key? The standard library's parser does not say."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]

_TOKEN = re.compile(
    r"""
      (?P<string> \"{3}(?:\\.|[^\\])*?\"{3,5} | '{3}.*?'{3,5} | "(?:\\.|[^"\\\n])*" | '[^'\n]*' )
    | (?P<comment> \#[^\n]* )
    | (?P<newline> \n )
    | (?P<mark> [\[\]{}=,] )
    | (?P<bare> [^\s\[\]{}=,\#"']+ )
    """,
    re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the line (from 1) of every table, key and array element in a TOML text.

    Args:
        text: A text that `tomllib` accepts; of other texts only a prefix may be found.
    Returns:
        Path such as ("model", "input", 0) → line.
    """
    return _Scanner(tuple(_tokens(text))).scan()


def line_of(lines: Mapping[KeyPath, int], path: Sequence[str | int]) -> int:
    """Return the line of `path`, or of the nearest table or key around it; 1 if there is none."""
    for end in range(len(path), 0, -1):
        if tuple(path[:end]) in lines:
            return lines[tuple(path[:end])]
    return 1


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        if kind != "comment":
            yield _Token(kind, match[0], line)
        line += match[0].count("\n")


class _Scanner:
    """One pass over the tokens; keeps where it is and what it has seen."""

    def __init__(self, tokens: tuple[_Token, ...]) -> None:
        self._tokens = tokens
        self._at = 0
        self._lines: dict[KeyPath, int] = {}

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        repeated: Counter[KeyPath] = Counter()
        while self._peek():
            if self._take_if("["):
                of_array = self._take_if("[")
                table, line = self._key()
                while self._take_if("]"):
                    pass
                if of_array:
                    table = (*table, repeated[table])
                    repeated[table[:-1]] += 1
                self._note(table, line)
            elif self._take_if("\n"):
                continue
            else:
                self._pair(table)
        return self._lines

    def _pair(self, table: KeyPath) -> None:
        path, line = self._key()
        self._note((*table, *path), line)
        if not self._take_if("="):
            self._at += 1  # not TOML; go on with what follows
            return
        self._value((*table, *path))

    def _value(self, path: KeyPath) -> None:
        if self._take_if("["):
            self._items(path)
        elif self._take_if("{"):
            while self._peek() and not self._take_if("}"):
                if not (self._take_if(",") or self._take_if("\n")):
                    self._pair(path)
        else:
            self._at += 1
            while (token := self._peek()) and token.kind == "bare":  # "1979-05-27 07:32:00" is two tokens
                self._at += 1

    def _items(self, path: KeyPath) -> None:
        index = 0
        while (token := self._peek()) and not self._take_if("]"):
            if not (self._take_if(",") or self._take_if("\n")):
                self._note((*path, index), token.line)
                self._value((*path, index))
                index += 1

    def _key(self) -> tuple[KeyPath, int]:
        parts: list[str] = []
        first = self._peek()
        while (token := self._peek()) and token.kind in ("bare", "string"):
            self._at += 1
            if token.kind == "string":
                parts.append(str(tomllib.loads(f"k = {token.text}")["k"]))
            else:
                parts.extend(filter(None, token.text.split(".")))
        return tuple(parts), first.line if first else 0

    def _note(self, path: KeyPath, line: int) -> None:
        for end in range(1, len(path) + 1):
            self._lines.setdefault(path[:end], line)

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take_if(self, text: str) -> bool:
        token = self._peek()
        if token is None or token.kind == "string" or token.text != text:
            return False
        self._at += 1
        return True
