from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from billhook.errors import InputError, MeasureError
from billhook.measure import Artifact, accuracy
from billhook.measure.accuracy import in_order, run_all
from tests.unit.measure.toy_backend import ToySession, registered, toy


@pytest.fixture(autouse=True)
def _toy_backend() -> Iterator[None]:
    with registered():
        yield


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return toy(tmp_path / "net")  # the output is twice the input, so the largest input wins


LOGITS = np.array([[3, 1, 2], [0, 5, 1], [1, 2, 9], [7, 1, 1], [0, 0, 4]], np.float32)
TARGETS = np.array([0, 1, 2, 1, 1])


def test_accuracy_is_the_fraction_of_largest_logits_that_hit(artifact: Artifact) -> None:
    batches = [(LOGITS[:3], TARGETS[:3]), (LOGITS[3:], TARGETS[3:])]
    measured = accuracy(artifact, batches, conditions={"data": "made up", "split": "test"})
    assert measured.value == 0.6
    assert measured.unit == "1"
    assert measured.conditions["samples"] == 5
    assert measured.conditions["correct"] == 3
    assert measured.conditions["data"] == "made up"
    assert measured.conditions["runtime"] == "toy 1.0"


def test_tensors_tuples_and_dicts_are_taken(artifact: Artifact) -> None:
    x, y = torch.tensor(LOGITS, requires_grad=True), torch.tensor(TARGETS)
    for inputs in (x, (x,), {"x": x}):
        assert accuracy(artifact, [(inputs, y)]).value == 0.6


def test_outputs_are_chosen_by_number_or_name(artifact: Artifact) -> None:
    assert accuracy(artifact, [(LOGITS, TARGETS)], output="y").value == 0.6
    with pytest.raises(InputError, match="no output 'z'; outputs: y"):
        accuracy(artifact, [(LOGITS, TARGETS)], output="z")


def test_a_fixed_batch_size_is_fed_in_pieces(tmp_path: Path) -> None:
    fixed = toy(tmp_path / "fixed", batch=2, dynamic=False)
    seen = []

    class Watched(ToySession):
        def run(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
            seen.append(len(inputs[0]))
            return super().run(inputs)

    (outputs,) = run_all(Watched({}), fixed, [LOGITS])
    assert seen == [2, 2, 2]
    np.testing.assert_array_equal(outputs, 2 * LOGITS)
    assert accuracy(fixed, [(LOGITS, TARGETS)]).value == 0.6


def test_wrong_data_are_refused(artifact: Artifact) -> None:
    with pytest.raises(InputError, match=r"got \[5, 3\] and \[4\]"):
        accuracy(artifact, [(LOGITS, TARGETS[:4])])
    with pytest.raises(InputError, match="takes 1 inputs, got 2"):
        in_order(artifact, (LOGITS, LOGITS))
    with pytest.raises(InputError, match=r"inputs \['x'\] are missing"):
        in_order(artifact, {"image": LOGITS})
    with pytest.raises(MeasureError, match="no data"):
        accuracy(artifact, [])


def test_an_output_that_is_not_a_number_is_an_error_and_not_a_wrong_answer(artifact: Artifact) -> None:
    broken = LOGITS.copy()
    broken[1, 1] = np.nan
    with pytest.raises(MeasureError, match="not a number for samples 0 to 5"):
        accuracy(artifact, [(broken, TARGETS)])
