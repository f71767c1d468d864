"""Example inputs: what is accepted, and what a plan remembers of them."""

from __future__ import annotations

import json

import pytest
import torch

from billhook.errors import InputError, PlanError
from billhook.graph.inputs import as_call, describe, repeat_batch, synthesize, tensors

IMAGE, TOKENS = torch.randn(2, 3, 4, 4), torch.tensor([[0, 5, 2]])


def test_a_tensor_a_tuple_and_a_dict_become_a_call() -> None:
    assert as_call(IMAGE) == ((IMAGE,), {})
    assert as_call((IMAGE, 3)) == ((IMAGE, 3), {})
    assert as_call([IMAGE]) == ((IMAGE,), {})
    assert as_call({"x": IMAGE, "flag": None}) == ((), {"x": IMAGE, "flag": None})


@pytest.mark.parametrize("wrong", ["image", 3, None])
def test_other_things_are_refused_with_what_to_give(wrong: object) -> None:
    with pytest.raises(InputError, match="give a tensor, a tuple of arguments or a dict"):
        as_call(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("empty", [(), {}, (1, "a"), {"x": None}])
def test_inputs_without_a_tensor_are_refused(empty: object) -> None:
    with pytest.raises(InputError, match="no tensor"):
        as_call(empty)  # type: ignore[arg-type]


def test_a_description_survives_json_and_gives_inputs_of_the_same_form() -> None:
    call = as_call(
        {"x": IMAGE, "more": [TOKENS, (torch.ones(2, dtype=torch.bool), 2.5)], "by": {"n": 3, "s": None}}
    )
    args, kwargs = synthesize(json.loads(json.dumps(describe(call))))

    assert args == ()
    assert kwargs["x"].shape == IMAGE.shape
    assert kwargs["more"][0].dtype == torch.int64
    assert kwargs["more"][1][0].dtype == torch.bool
    assert kwargs["more"][1][1] == 2.5
    assert kwargs["by"] == {"n": 3, "s": None}


def test_synthesized_integers_stay_below_the_largest_seen() -> None:
    made = synthesize(describe(as_call(TOKENS)))[0][0]
    assert made.max() <= 5
    assert made.min() >= 0


def test_synthesized_inputs_are_the_same_each_time() -> None:
    description = describe(as_call(IMAGE))
    assert torch.equal(synthesize(description)[0][0], synthesize(description)[0][0])


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"args": []},
        {"args": 3, "kwargs": {}},
        {"args": [{"shape": [2, -1], "dtype": "float32", "max": 0}], "kwargs": {}},
        {"args": [{"shape": [10**6, 10**6], "dtype": "float32", "max": 0}], "kwargs": {}},
        {"args": [{"shape": [2], "dtype": "nonsense", "max": 0}], "kwargs": {}},
        {"args": [{"shape": [2], "dtype": "nn", "max": 0}], "kwargs": {}},
        {"args": [{"shape": "2", "dtype": None, "max": 0}], "kwargs": {}},
        {"args": ["tensor"], "kwargs": {}},
    ],
)
def test_a_broken_description_is_a_plan_error(broken: dict[str, object]) -> None:
    with pytest.raises(PlanError, match="description of the inputs is corrupted"):
        synthesize(broken)


def test_what_cannot_be_described_is_refused_when_the_plan_is_made() -> None:
    with pytest.raises(InputError, match="hold a object"):
        describe(((IMAGE, object()), {}))


def test_a_batch_is_repeated_everywhere() -> None:
    (x, pair), kwargs = repeat_batch(((IMAGE, (TOKENS, 1)), {"m": TOKENS}), 3)
    assert x.shape == (6, 3, 4, 4)
    assert pair[0].shape == (3, 3)
    assert pair[1] == 1
    assert kwargs["m"].shape == (3, 3)


def test_tensors_are_found_in_order() -> None:
    assert [t is IMAGE for t in tensors({"a": (IMAGE, [TOKENS]), "b": 1, "c": IMAGE})] == [True, False, True]
