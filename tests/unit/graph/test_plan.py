"""A plan is plain data: it survives JSON, and what is not a plan is refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billhook.errors import PlanError
from billhook.graph import Plan
from billhook.graph.plan import MAX_BYTES


def array(text: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.array([c == "1" for c in text])


def example(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "keep": {"conv1": array("110100"), "fc": array("01")}, "fingerprint": "f" * 32,
        "inputs": {"args": [], "kwargs": {}}, "made_by": {"method": "l2"},
    }  # fmt: skip
    return Plan(**{**values, **changes})


keeps = st.dictionaries(
    st.text(min_size=1, max_size=8), st.lists(st.booleans(), min_size=1, max_size=40), max_size=4
)


@given(keeps)
def test_a_plan_survives_json(keep: dict[str, list[bool]]) -> None:
    arrays = {name: np.array(k) for name, k in keep.items() if any(k)}
    plan = example(keep=arrays)
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.to_json() == plan.to_json()
    assert all(np.array_equal(again.keep[n], arrays[n]) for n in arrays)


def test_the_text_is_short_and_readable() -> None:
    assert example().to_dict()["groups"] == {
        "conv1": {"size": 6, "keep": "0-1,3"},
        "fc": {"size": 2, "keep": "1"},
    }


def test_counts_and_removed_units() -> None:
    plan = example(keep={"a": array("110"), "b": array("11")})
    assert plan.counts == {"a": 2, "b": 2}
    assert plan.removed == {"a": 1}


def test_a_difference_names_groups_with_both_counts() -> None:
    other = example(keep={"conv1": array("100100"), "fc": array("01")})
    assert example().diff(other) == {"conv1": (3, 2)}
    assert example().diff(example()) == {}


def test_a_different_choice_of_as_many_units_is_a_difference() -> None:
    other = example(keep={"conv1": array("011100"), "fc": array("01")})
    assert example().diff(other) == {"conv1": (3, 3)}


def test_plans_are_equal_and_hash_by_content() -> None:
    assert example() == example()
    assert hash(example()) == hash(example())
    assert example() != example(fingerprint="0" * 32)
    assert example() != "plan"


def test_the_record_of_its_making_can_grow() -> None:
    plan = example().with_made_by(seed=3)
    assert plan.made_by == {"method": "l2", "seed": 3}
    assert example().made_by == {"method": "l2"}


def test_a_plan_is_saved_whole_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    example().save(path)
    assert Plan.load(path) == example()
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def edited(**changes: Any) -> dict[str, Any]:
    return {**example().to_dict(), **changes}


def with_group(entry: Any) -> dict[str, Any]:
    return edited(groups={"conv1": entry})


HOSTILE: dict[str, Any] = {
    "a list": [],
    "null": None,
    "a number": 3,
    "another format": edited(format="billhook.plan/2"),
    "no format": {k: v for k, v in example().to_dict().items() if k != "format"},
    "an unknown entry": edited(code="import os"),
    "no groups": edited(groups=None),
    "groups in a list": edited(groups=[1]),
    "fingerprint is a number": edited(fingerprint=3),
    "no inputs": edited(inputs=None),
    "inputs in a list": edited(inputs=[]),
    "mixing is a number": edited(mixing=3),
    "unknown mixing": edited(mixing="always"),
    "made_by is a text": edited(made_by="me"),
    "group is a text": with_group("0-3"),
    "group is null": with_group(None),
    "size is a text": with_group({"size": "6", "keep": "0"}),
    "size is true": with_group({"size": True, "keep": "0"}),
    "size is zero": with_group({"size": 0, "keep": "0"}),
    "size is negative": with_group({"size": -4, "keep": "0"}),
    "size is absurd": with_group({"size": 10**12, "keep": "0"}),
    "keep is missing": with_group({"size": 6}),
    "keep is blank": with_group({"size": 6, "keep": " "}),
    "keep is null": with_group({"size": 6, "keep": None}),
    "keep is a list": with_group({"size": 6, "keep": [0, 1]}),
    "keep is past the end": with_group({"size": 6, "keep": "4-6"}),
    "keep runs backwards": with_group({"size": 6, "keep": "4-2"}),
    "keep names a unit twice": with_group({"size": 6, "keep": "0-3,2"}),
    "keep is negative": with_group({"size": 6, "keep": "-2"}),
    "keep is words": with_group({"size": 6, "keep": "all"}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_a_plan_is_refused(name: str) -> None:
    with pytest.raises(PlanError):
        Plan.from_json(json.dumps(HOSTILE[name]))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"format": NaN', "\x00"])
def test_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="not valid JSON"):
        Plan.from_json(text)


def test_an_error_names_the_group() -> None:
    with pytest.raises(PlanError, match=r"corrupted at group 'conv1': range '4-6' of 6"):
        Plan.from_dict(with_group({"size": 6, "keep": "4-6"}))


def test_an_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with pytest.raises(PlanError, match=r"plan\.json: .*No such file"):
        Plan.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match=r"plan\.json: "):
        Plan.load(path)
    path.write_text(example().to_json()[:-20])
    with pytest.raises(PlanError, match=r"plan\.json: plan is not valid JSON"):
        Plan.load(path)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(PlanError, match="this is no plan"):
        Plan.load(path)
