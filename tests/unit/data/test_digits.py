from __future__ import annotations

import sys

import pytest
import torch

from billhook.data import load
from billhook.errors import MissingExtraError

pytest.importorskip("sklearn")


def test_digits_are_split_and_normalised() -> None:
    data = load("digits")

    inputs, labels = data.calibration(len(data.train))

    assert len(data.train) + len(data.validation) + len(data.test.open()) == 1797
    assert inputs.shape[1:] == data.input_shape == (1, 8, 8)
    assert abs(inputs.mean()) < 0.02
    assert abs(inputs.std() - 1) < 0.02
    assert sorted(labels.unique().tolist()) == list(range(10))
    assert len(data.classes) == 10


def test_parts_share_no_image() -> None:
    data = load("digits")
    parts = [data.train, data.validation, data.test.open()]

    seen = [{image.numpy().tobytes() for image in part.images} for part in parts]  # type: ignore[attr-defined]

    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_a_linear_layer_learns_them() -> None:
    data = load("digits")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(5):
        for inputs, labels in data.training(32):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()

    [(inputs, labels)] = list(data.evaluation("validation"))

    assert (model(inputs).argmax(1) == labels).float().mean() > 0.9


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)

    with pytest.raises(MissingExtraError, match=r"billhook\[digits\]"):
        load("digits")
