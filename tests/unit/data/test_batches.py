from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from billhook import train
from billhook.data import Augment, Batches, Order


def batches(order: Order, *, channels: int = 1, augment: Augment | None = None) -> Batches:
    images = torch.randint(256, (order.count, channels, 6, 5), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(order.count)
    ones = [0.5] * channels
    return Batches(images.to(torch.uint8), labels, order, mean=ones, std=ones, augment=augment)


def test_pixels_are_normalised_per_channel() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    loader = Batches(images, torch.zeros(1), Order(1, 1), mean=(0.1, 0.2, 0.5), std=(0.1, 0.4, 0.25))

    [(inputs, _)] = list(loader)

    assert inputs.flatten().tolist() == pytest.approx([-1.0, 0.0, 2.0], abs=1e-6)
    assert inputs.dtype == torch.float32
    assert inputs.is_contiguous()


def test_labels_follow_their_images() -> None:
    loader = batches(Order(20, 6, seed=1))

    for inputs, labels in loader:
        expected = (loader.images[labels].float() / 255 - 0.5) / 0.5
        torch.testing.assert_close(inputs, expected)


def test_each_loop_is_the_next_epoch() -> None:
    loader = batches(Order(20, 20, seed=1))

    first, second = next(iter(loader))[1], next(iter(loader))[1]
    loader.set_epoch(0)

    assert not first.equal(second)
    assert next(iter(loader))[1].equal(first)


def test_an_epoch_from_the_middle_equals_the_rest_of_a_whole_one() -> None:
    loader = batches(Order(40, 8, seed=5), augment=Augment(flip=True, crop=2))

    whole = list(loader.epoch(3))
    rest = list(loader.epoch(3, start=2))

    assert len(whole) == len(loader) == 5
    for (x, y), (again, labels) in zip(whole[2:], rest, strict=True):
        assert x.equal(again)
        assert y.equal(labels)


def test_training_takes_it_as_batches_that_can_resume() -> None:
    assert isinstance(batches(Order(4, 2)), train.Batches)


def test_random_changes_differ_between_epochs() -> None:
    loader = batches(Order(16, 16), augment=Augment(flip=True, crop=1))

    assert not next(loader.epoch(0))[0].equal(next(loader.epoch(1))[0])


def test_the_global_generator_is_not_touched() -> None:
    state = torch.get_rng_state()

    list(batches(Order(16, 4, seed=0), augment=Augment(flip=True, crop=1)))

    assert torch.get_rng_state().equal(state)


def test_flips_mirror_about_half_of_the_images() -> None:
    images = torch.arange(12, dtype=torch.uint8).reshape(1, 2, 2, 3).repeat(400, 1, 1, 1)

    changed = Augment(flip=True)(images, torch.Generator().manual_seed(0))

    mirrored = changed.eq(images.flip(3)).flatten(1).all(1)
    assert (mirrored | changed.eq(images).flatten(1).all(1)).all()
    assert 150 < mirrored.sum() < 250


def test_crops_shift_images_and_fill_with_black() -> None:
    images = torch.full((300, 1, 4, 4), 7, dtype=torch.uint8)
    images[:, :, 1, 2] = 9

    changed = Augment(crop=1)(images, torch.Generator().manual_seed(0))

    places = {tuple(place) for place in (changed == 9).nonzero()[:, 2:].tolist()}
    assert places == {(row, column) for row in (0, 1, 2) for column in (1, 2, 3)}
    assert set(changed.unique().tolist()) == {0, 7, 9}


def test_crops_move_all_channels_together() -> None:
    def shifted(images: Tensor) -> Tensor:
        return Augment(flip=True, crop=2)(images, torch.Generator().manual_seed(4))

    grey = torch.randint(255, (10, 1, 6, 6), generator=torch.Generator().manual_seed(1)).to(torch.uint8)

    assert shifted(grey.repeat(1, 3, 1, 1)).equal(shifted(grey).repeat(1, 3, 1, 1))


def test_no_changes_are_free() -> None:
    images = torch.zeros(2, 1, 3, 3, dtype=torch.uint8)

    assert Augment()(images, torch.Generator()) is images


@pytest.mark.serial
def test_loading_is_much_faster_than_training() -> None:
    """A step of the smallest network of the zoo takes more than 10 ms; the loader about 0.7 ms."""
    loader = Batches(
        torch.zeros(6400, 1, 28, 28, dtype=torch.uint8),
        torch.zeros(6400, dtype=torch.int64),
        Order(6400, 128, seed=0),
        mean=(0.3,),
        std=(0.3,),
        augment=Augment(flip=True, crop=2),
    )
    fastest = []
    for epoch in range(3):
        start = time.process_time()
        assert sum(len(labels) for _, labels in loader.epoch(epoch)) == 6400
        fastest.append((time.process_time() - start) / len(loader))

    assert min(fastest) < 5e-3
