from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from billhook.data import Augment, Dataset
from billhook.data._dataset import tensor_dataset
from billhook.errors import InputError


def made(count: int = 200) -> Dataset:
    images = torch.randint(256, (count, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)

    def read_test() -> tuple[Tensor, Tensor]:
        return images[:7], torch.full((7,), 9)

    return tensor_dataset(
        "noise",
        images,
        torch.arange(count) % 2,
        read_test,
        classes=("even", "odd"),
        mean=(0.5,),
        std=(0.25,),
        augmentation=Augment(flip=True),
        held_out=0.1,
    )


def test_a_part_of_the_training_set_is_held_out() -> None:
    data = made()

    assert (len(data.train), len(data.validation)) == (180, 20)
    assert data.input_shape == (1, 4, 4)


def test_training_batches_are_full_shuffled_and_changed() -> None:
    loader = made().training(50, seed=1)

    assert [len(labels) for _, labels in loader] == [50, 50, 50]
    assert not next(loader.epoch(0))[0].equal(next(made().training(50, seed=1, augment=False).epoch(0))[0])


def test_evaluation_is_complete_in_order_and_without_changes() -> None:
    data = made()

    inputs, labels = next(iter(data.evaluation("validation", 100)))

    assert labels.equal(data.validation.labels)  # type: ignore[attr-defined]
    assert inputs.equal(next(iter(data.evaluation("validation", 100)))[0])
    assert len(next(iter(data.evaluation("train", 180)))[1]) == 180


def test_evaluation_can_be_limited() -> None:
    data = made()

    assert sum(len(labels) for _, labels in data.evaluation("validation", 4, limit=6)) == 6
    assert sum(len(labels) for _, labels in data.evaluation("validation", 4, limit=10**9)) == 20


def test_only_evaluation_on_test_opens_the_test_split() -> None:
    data = made()

    data.training(10), data.evaluation("validation"), data.evaluation("train"), data.calibration(5)
    assert data.test.uses == 0

    assert next(iter(data.evaluation("test")))[1].tolist() == [9] * 7
    assert data.test.uses == 1


def test_calibration_gives_normalised_training_images() -> None:
    data = made()

    inputs, labels = data.calibration(64)

    assert inputs.shape == (64, 1, 4, 4)
    assert labels.shape == (64,)
    assert inputs.equal(data.calibration(64)[0])
    assert not inputs.equal(data.calibration(64, seed=1)[0])
    assert inputs.min() >= -2
    assert inputs.max() <= 2


def test_preprocessing_says_in_plain_data_how_to_make_an_input() -> None:
    data = made()

    assert json.loads(json.dumps(data.preprocessing)) == {
        "layout": "NCHW",
        "channels": "grey",
        "size": [4, 4],
        "scale": 1 / 255,
        "mean": [0.5],
        "std": [0.25],
    }


def test_wrong_requests_are_refused() -> None:
    data = made()

    with pytest.raises(InputError, match="'train', 'validation' or 'test'"):
        data.evaluation("validate")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="limit"):
        data.evaluation(limit=0)
    with pytest.raises(InputError, match="between 1 and 180"):
        data.calibration(181)
