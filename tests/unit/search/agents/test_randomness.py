from __future__ import annotations

import random

import numpy as np
import torch

from billhook.search.agents.randomness import OwnRandomness


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(1))


def test_draws_inside_follow_from_the_seed() -> None:
    found = []
    for seed in (1, 1, 2):
        with OwnRandomness(seed).inside():
            found.append(draws())
        draws()
    assert found[0] == found[1] != found[2]


def test_nobody_outside_notices() -> None:
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    expected = [draws(), draws(), draws()]
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    found, own = [draws()], OwnRandomness(0)
    with own.inside():
        draws()
        found.append(own.outside(draws))
        draws()
    assert [*found, draws()] == expected


def test_draws_inside_do_not_depend_on_what_is_drawn_outside() -> None:
    found = []
    for calls in (0, 1, 7):
        own = OwnRandomness(0)
        with own.inside():
            first = draws()
            for _ in range(calls):
                own.outside(draws)
            found.append((first, draws()))
    assert found[0] == found[1] == found[2]


def test_the_number_of_threads_is_given_back(monkeypatch: object) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        own = OwnRandomness(0)
        with own.inside():
            assert torch.get_num_threads() == 1
            assert own.outside(torch.get_num_threads) == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
