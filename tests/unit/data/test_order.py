from __future__ import annotations

import pytest
import torch

from billhook.data import Order
from billhook.data._order import generator
from billhook.errors import InputError


def test_an_epoch_contains_every_sample_once() -> None:
    order = Order(count=10, batch_size=4, seed=3)

    samples = torch.cat([samples for _, samples in order.steps(0)])

    assert sorted(samples.tolist()) == list(range(10))
    assert len(order) == 3


def test_without_a_seed_samples_keep_their_order() -> None:
    assert [s.tolist() for _, s in Order(5, 2).steps(7)] == [[0, 1], [2, 3], [4]]


def test_epochs_and_seeds_differ_and_repeat() -> None:
    def first_epoch(seed: int, epoch: int) -> list[int]:
        return next(Order(100, 100, seed).steps(epoch))[1].tolist()

    assert first_epoch(0, 0) == first_epoch(0, 0)
    assert first_epoch(0, 0) != first_epoch(0, 1)
    assert first_epoch(0, 1) != first_epoch(1, 0)


def test_an_incomplete_last_batch_can_be_left_out() -> None:
    order = Order(10, 4, seed=0, drop_last=True)

    assert len(order) == 2
    assert [len(s) for _, s in order.steps(0)] == [4, 4]


def test_a_split_smaller_than_a_batch_still_gives_one() -> None:
    order = Order(3, 4, seed=0, drop_last=True)

    assert [len(s) for _, s in order.steps(0)] == [3]
    assert len(order) == 1


def test_an_epoch_can_start_at_any_step() -> None:
    order = Order(50, 8, seed=1)

    whole = list(order.steps(2))
    rest = list(order.steps(2, start=4))

    assert [step for step, _ in rest] == [4, 5, 6]
    assert all(a.equal(b) for (_, a), (_, b) in zip(whole[4:], rest, strict=True))


def test_generator_depends_on_the_order_of_its_key() -> None:
    numbers = {
        tuple(torch.rand(3, generator=generator(*key)).tolist()) for key in [(1, 2), (2, 1), (3,), (0, 3)]
    }

    assert len(numbers) == 4


@pytest.mark.parametrize(
    ("count", "batch_size", "seed", "word"),
    [(0, 4, 0, "without samples"), (4, 0, 0, "batch_size"), (4, 4, -1, "seed")],
)
def test_impossible_orders_are_refused(count: int, batch_size: int, seed: int, word: str) -> None:
    with pytest.raises(InputError, match=word):
        Order(count, batch_size, seed)
