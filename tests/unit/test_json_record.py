from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billhook.errors import StorageError
from billhook.json_record import MAX_DEPTH, decode, encode, read_json, read_text, write_json


@dataclass(frozen=True)
class Inner:
    name: str
    share: float | None = None


@dataclass(frozen=True)
class Outer:
    count: int
    kind: Literal["a", "b"]
    ready: bool
    inner: tuple[Inner, ...] = ()
    table: Mapping[str, int] = field(default_factory=dict)
    free: Mapping[str, Any] = field(default_factory=dict)


FINITE = st.floats(allow_nan=False, allow_infinity=False)
RECORDS = st.builds(
    Outer,
    st.integers(),
    st.sampled_from(["a", "b"]),
    st.booleans(),
    st.lists(st.builds(Inner, st.text(), st.none() | FINITE), max_size=3).map(tuple),
    st.dictionaries(st.text(), st.integers(), max_size=3),
    st.dictionaries(
        st.text(), st.none() | st.booleans() | FINITE | st.lists(st.text(), max_size=2), max_size=3
    ),
)


@given(RECORDS)
def test_a_record_survives_json(tmp_path_factory: pytest.TempPathFactory, record: Outer) -> None:
    path = tmp_path_factory.getbasetemp() / "record.json"
    write_json(path, encode(record))
    assert decode(Outer, read_json(path, 2**20), "record") == record


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "^r: expected a table of names, found a list$"),
        ({"kind": "a", "ready": True}, "^r: entry 'count' is missing$"),
        ({"count": True, "kind": "a", "ready": True}, "^r.count: expected a whole number, found True$"),
        ({"count": 1.0, "kind": "a", "ready": True}, "^r.count: expected a whole number, found 1.0$"),
        ({"count": 1, "kind": "c", "ready": True}, "^r.kind: expected one of a, b, found 'c'$"),
        ({"count": 1, "kind": [], "ready": True}, "^r.kind: expected one of a, b, found a list$"),
        ({"count": 1, "kind": "a", "ready": 0}, "^r.ready: expected true or false, found 0$"),
        ({"count": 1, "kind": "a", "ready": True, "inner": "x"}, "^r.inner: expected a list, found 'x'$"),
        (
            {"count": 1, "kind": "a", "ready": True, "inner": [{"name": None}]},
            r"^r.inner\[0\].name: expected text, found None$",
        ),
        (
            {"count": 1, "kind": "a", "ready": True, "table": {"k": "v"}},
            "^r.table.k: expected a whole number",
        ),
        (
            {"count": 1, "kind": "a", "ready": True, "contents": 1},
            "^r: unknown entry 'contents'; did you mean",
        ),
    ],
)
def test_a_wrong_entry_is_named(data: Any, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        decode(Outer, data, "r")


@pytest.mark.parametrize("share", [math.inf, math.nan, 10**400, "1", True])
def test_a_number_is_finite(share: object) -> None:
    with pytest.raises(StorageError, match=r"^r.share: expected a finite number, found "):
        decode(Inner, {"name": "x", "share": share}, "r")


def test_a_whole_number_may_stand_for_a_fraction() -> None:
    assert decode(Inner, {"name": "x", "share": 1}, "r") == Inner("x", 1.0)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(StorageError) as caught:
        decode(Inner, {"name": "x", "share": "y" * 10_000}, "r")
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("value", [math.nan, -math.inf, object(), b"bytes", {1, 2}])
def test_what_json_cannot_hold_is_named(value: object) -> None:
    with pytest.raises(StorageError, match=r"^record\.free\.x\[0\]: cannot write "):
        encode(Outer(1, "a", True, free={"x": [value]}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not valid JSON"),
        (b"", "is not valid JSON"),
        (b"\xff", "is not UTF-8 text"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"1" * 10_000, "is not valid JSON"),
        (b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2), "nested deeper than 50 levels"),
        (b" " * 200_000, "larger than 150000 bytes"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=rf"x\.json: {message}"):
        read_json(path, 150_000)


def test_nesting_up_to_the_bound_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"[" * MAX_DEPTH + b"1" + b"]" * MAX_DEPTH)
    assert read_json(path, 1000)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"x\.json: cannot be read: No such file"):
        read_text(tmp_path / "x.json", 10)


def test_a_file_that_cannot_be_replaced_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="cannot be written: No space left on device"):
        write_json(path, {"a": 2})
    assert read_json(path, 100) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
