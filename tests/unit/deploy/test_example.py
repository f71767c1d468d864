from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from billhook.deploy.example import Call, evaluating, named_outputs
from billhook.errors import ExportError, InputError
from tests.unit.deploy.toy_networks import Keywords

A, B = torch.arange(6.0).view(2, 3), torch.ones(2, 3)


def test_a_tensor_a_tuple_and_a_dict_are_calls() -> None:
    model = Keywords()
    for inputs in (A, (A,), {"a": A}):
        torch.testing.assert_close(Call.of(model, inputs).run(model), A)
    torch.testing.assert_close(Call.of(model, (A, B, 3)).run(model), 3 * A - B)


def test_keywords_are_ordered_as_the_forward_has_them() -> None:
    call = Call.of(Keywords(), {"scale": 2, "b": B, "a": A})
    assert list(call.kwargs) == ["a", "b", "scale"]
    first, second = call.tensors
    assert first is A
    assert second is B


def test_inputs_without_a_tensor_are_refused() -> None:
    with pytest.raises(InputError, match="no tensor"):
        Call.of(Keywords(), (3,))


@pytest.mark.parametrize(
    ("inputs", "batch"),
    [(A, 2), ((A, B, 7), 2), ((A, B[:1]), None), ((A, torch.tensor(1.0)), None), (torch.tensor(1.0), None)],
)
def test_the_batch_size_is_the_first_size_that_all_tensors_share(inputs: Any, batch: int | None) -> None:
    assert Call.of(Keywords(), inputs).batch == batch


def test_samples_are_cut_off_or_repeated() -> None:
    call = Call.of(Keywords(), (A, B, 3))
    assert torch.equal(call.with_batch(1).args[0], A[:1])
    assert torch.equal(call.with_batch(3).args[0], torch.stack([A[0], A[1], A[0]]))
    assert call.with_batch(3).args[2] == 3


def test_a_network_that_cannot_run_is_reported_with_the_shapes() -> None:
    model = nn.Linear(7, 1)
    with pytest.raises(
        ExportError, match=r"itself fails on the example inputs \(shapes \[2, 3\]\).*RuntimeError"
    ):
        Call.of(model, A).run(model)


def test_eval_mode_is_put_back_module_by_module() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Dropout()))
    model[1].eval()
    before = [m.training for m in model.modules()]
    with contextlib.suppress(KeyError), evaluating(model):
        assert not any(m.training for m in model.modules())
        raise KeyError
    assert [m.training for m in model.modules()] == before


class Pair(NamedTuple):
    mean: Tensor
    std: Tensor


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (A, ["output"]),
        ((A, B), ["output_0", "output_1"]),
        ({"logits": A, "aux": [A, B]}, ["logits", "aux_0", "aux_1"]),
        (Pair(A, B), ["mean", "std"]),
        ([A, None, 3, B], ["output_0", "output_3"]),
        ({"a": {"b": A}, "a_b": B}, ["a_b", "a_b_"]),
        ((), []),
    ],
)
def test_outputs_are_named_by_their_place(outputs: Any, names: list[str]) -> None:
    assert list(named_outputs(outputs)) == names
