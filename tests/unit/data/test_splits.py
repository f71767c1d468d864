from __future__ import annotations

import logging

import pytest
import torch

from billhook.data import Augment, Sealed, TensorSplit, hold_out


def split(count: int = 4) -> TensorSplit:
    images = torch.arange(count, dtype=torch.uint8).reshape(count, 1, 1, 1)
    return TensorSplit(images, torch.arange(count), (0.0,), (1.0,), Augment())


def test_parts_are_disjoint_complete_and_balanced() -> None:
    labels = torch.arange(10).repeat(60)

    rest, held = hold_out(labels, 0.1)

    assert sorted([*rest.tolist(), *held.tolist()]) == list(range(600))
    assert labels[held].bincount().tolist() == [6] * 10


def test_the_same_seed_gives_the_same_parts() -> None:
    labels = torch.arange(10).repeat(20)

    assert hold_out(labels, 0.2)[1].equal(hold_out(labels, 0.2)[1])
    assert not hold_out(labels, 0.2)[1].equal(hold_out(labels, 0.2, seed=1)[1])


def test_the_first_of_the_held_out_part_are_a_sample_of_all_classes() -> None:
    labels = torch.arange(4).repeat_interleave(100)

    _, held = hold_out(labels, 0.5)

    assert set(labels[held[:50]].tolist()) == {0, 1, 2, 3}


def test_a_class_with_one_sample_stays_in_the_rest() -> None:
    rest, held = hold_out(torch.tensor([0, 0, 0, 0, 1, 3]), 0.5)

    assert sorted(held.tolist()) == [i for i in held.sort().values.tolist() if i < 4]
    assert {4, 5} <= set(rest.tolist())
    assert len(held) == 2


def test_take_keeps_the_given_order() -> None:
    part = split().take(torch.tensor([3, 0]))

    assert part.labels.tolist() == [3, 0]
    assert part.images.flatten().tolist() == [3, 0]
    assert len(part) == 2


def test_a_sealed_split_is_read_only_when_opened() -> None:
    reads = []
    sealed = Sealed("clothes", lambda: reads.append(1) or split())

    assert not reads
    assert sealed.uses == 0
    sealed.open()
    sealed.open()
    assert len(reads) == 1
    assert sealed.uses == 2


def test_a_second_use_of_a_sealed_split_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    sealed = Sealed("clothes", split)

    with caplog.at_level(logging.INFO, "billhook"):
        sealed.open()
        assert [record.levelname for record in caplog.records] == ["INFO"]
        sealed.open()

    assert caplog.records[-1].levelname == "WARNING"
    assert "test split of clothes is used for the 2. time" in caplog.text
