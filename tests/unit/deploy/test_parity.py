from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from billhook.deploy import check_parity
from billhook.deploy.parity import difference
from billhook.errors import ExportError
from billhook.measure import Artifact, FileRecord, Manifest, TensorSpec

ROWS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
NAN, INF = float("nan"), float("inf")


class Session:
    """A runtime that does to the inputs what the test says."""

    def __init__(self, run: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> None:
        self._run = run

    def run(self, inputs: Any) -> list[np.ndarray[Any, Any]]:
        return [self._run(inputs[0])]


def _artifact(dynamic: bool = True) -> Artifact:
    spec = TensorSpec("logits", (None, 3), "float32")
    return Artifact(
        Path("net"), Manifest("toy", "m", (FileRecord("m", 0, ""),), (spec,), (spec,), 4, dynamic)
    )


MODEL = nn.Identity()


def test_equal_outputs_pass_at_several_batch_sizes() -> None:
    parity = check_parity(MODEL, _artifact(), Session(lambda x: x), ROWS)
    assert (parity.max_abs_error, parity.max_rel_error, parity.argmax_agreement) == (0.0, 0.0, 1.0)
    assert parity.batches == (4, 1, 5)
    assert check_parity(MODEL, _artifact(False), Session(lambda x: x), ROWS).batches == (4,)


def test_small_errors_pass_and_are_reported() -> None:
    parity = check_parity(MODEL, _artifact(), Session(lambda x: x * (1 + 1e-5)), ROWS)
    assert 0 < parity.max_rel_error < 2e-5
    assert parity.argmax_agreement == 1.0


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda x: x * 1.01, "output 'logits' at batch size 4 differs from PyTorch: error"),
        (lambda x: np.full_like(x, NAN), "differs"),
        (lambda x: np.full_like(x, INF), "differs"),
        (lambda x: x[:, :2], r"has shape \[4, 2\] in the runtime, \[4, 3\] in PyTorch"),
        (lambda x: x if len(x) > 1 else x + 1, "'logits' at batch size 1 differs"),
        (lambda x: x if len(x) == 4 else x[:4], "'logits' at batch size 5 has shape"),
    ],
)
def test_a_wrong_runtime_is_caught_and_the_output_named(run: Any, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        check_parity(MODEL, _artifact(), Session(run), ROWS)


def test_a_runtime_that_fails_at_another_batch_size() -> None:
    def run(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if len(x) != 4:
            raise RuntimeError("cannot broadcast\nat some length")
        return x

    with pytest.raises(ExportError, match=r"batch of 1 .*cannot broadcast; export with dynamic_batch=False"):
        check_parity(MODEL, _artifact(), Session(run), ROWS)


def _difference(expected: Any, actual: Any) -> tuple[float, float, float | None]:
    d = difference(np.array(expected), np.array(actual))
    return d.absolute, d.relative, d.agreement


def test_differences_are_relative_to_the_largest_output() -> None:
    assert _difference([[0.0, -10.0], [4.0, 1.0]], [[1.0, -10.0], [4.0, 1.0]]) == (1.0, 0.1, 1.0)
    assert _difference([0.0, 0.0], [0.0, 0.5]) == (0.5, 0.5, None)


def test_numbers_that_are_none_count_as_equal_only_in_the_same_places() -> None:
    assert _difference([NAN, INF, 1.0], [NAN, INF, 1.0])[:2] == (0.0, 0.0)
    assert _difference([NAN, 1.0], [1.0, 1.0])[0] == INF
    assert _difference([INF, 1.0], [-INF, 1.0])[0] == INF


def test_argmax_is_compared_sample_by_sample() -> None:
    assert _difference([[1.0, 2.0], [2.0, 1.0]], [[1.0, 2.0], [1.0, 2.0]])[2] == 0.5


def test_indices_may_flip_rarely() -> None:
    indices = np.arange(1000)
    flipped = indices.copy()
    flipped[0] = 7
    assert _difference(indices, flipped)[2] == 0.999
    assert _difference([True, False], [True, True])[2] == 0.5


def test_empty_outputs_agree() -> None:
    assert _difference(np.zeros((0, 3)), np.zeros((0, 3))) == (0.0, 0.0, None)
