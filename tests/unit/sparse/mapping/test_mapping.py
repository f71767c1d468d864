from __future__ import annotations

import json
from typing import Any

import pytest

from billhook.errors import StorageError
from billhook.graph.patterns import parse_pattern
from billhook.sparse.mapping import Mapping

MAPPING = Mapping(
    {"a.weight": parse_pattern("8x4"), "b.weight": None, "c.weight": parse_pattern("block_punched:rows=4")},
    {"b.weight": "depthwise"},
    {"a.weight": 0.75, "c.weight": 0.9},
)


def test_a_mapping_survives_json() -> None:
    again = Mapping.from_dict(json.loads(json.dumps(MAPPING.to_dict())))
    assert again == MAPPING
    assert list(again.choices) == list(MAPPING.choices)
    assert hash(again) == hash(MAPPING)


def test_patterns_are_those_of_the_tensors_that_have_one() -> None:
    assert list(MAPPING.patterns) == ["a.weight", "c.weight"]


def test_a_mapping_reads_as_one_line_per_tensor() -> None:
    lines = str(MAPPING).splitlines()
    assert lines == [
        "a.weight  8x4  75.0%",
        "b.weight  dense  depthwise",
        "c.weight  4x1  90.0%",
    ]
    assert str(Mapping({})) == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "billhook.plan/1"}, "not a mapping"),
        ({"choices": None}, "'choices' is missing"),
        ({"choices": {"a": 8}}, "choices.a is a int"),
        ({"choices": {"a": "9" * 5000 + "x1"}}, "choices.a: .* 5000 digits"),
        ({"choices": {"a": "8y4"}}, "choices.a: unknown pattern '8y4'"),
        ({"choices": {"a": "block_punched:rows=0"}}, "choices.a: .*rows=0 must be"),
        ({"sparsities": {"a.weight": 1.0}}, "must be at least 0 and below 1"),
        ({"sparsities": {"a.weight": float("nan")}}, "must be at least 0 and below 1"),
        ({"sparsities": {"a.weight": True}}, "sparsities.a.weight is a bool"),
        ({"sparsities": {"x": 0.5}}, "'x' has a reason or a sparsity but no choice"),
        ({"reasons": {"x": "?"}}, "'x' has a reason or a sparsity but no choice"),
        ({"more": 1}, "unknown entries"),
    ],
)
def test_wrong_data_is_refused_and_the_entry_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(StorageError, match=message):
        Mapping.from_dict({**MAPPING.to_dict(), **change})


@pytest.mark.parametrize("data", [None, [], "dense", {}])
def test_what_is_no_table_is_refused(data: Any) -> None:
    with pytest.raises(StorageError, match="not a mapping"):
        Mapping.from_dict(data)
