from __future__ import annotations

import random

import numpy as np
import torch

from billhook.train.rng import derive_seed, preserved_rng, rng_state, seed_rng, set_rng_state


def draw() -> tuple[float, ...]:
    # The normal draws leave half a pair behind, which is part of the state.
    return random.gauss(0, 1), np.random.normal(), random.random(), np.random.rand(), torch.rand(()).item()


def test_a_restored_state_gives_the_same_numbers() -> None:
    with preserved_rng():
        draw()
        state = rng_state()
        first = [draw() for _ in range(3)]
        set_rng_state(state)
        assert [draw() for _ in range(3)] == first


def test_a_state_that_is_a_part_of_a_larger_tensor() -> None:
    with preserved_rng():
        state = rng_state()
        first = draw()
        stacked = {name: torch.stack([torch.zeros_like(value), value]) for name, value in state.items()}
        set_rng_state({name: value[1] for name, value in stacked.items()})
        assert draw() == first


def test_the_state_before_any_normal_draw_is_restored_too() -> None:
    with preserved_rng():
        seed_rng(1)
        state = rng_state()
        first = draw()
        set_rng_state(state)
        assert draw() == first


def test_the_callers_state_is_given_back() -> None:
    before = rng_state()
    with preserved_rng():
        seed_rng(3)
        draw()
    after = rng_state()
    assert all(torch.equal(v, after[name]) or v.isnan().all() for name, v in before.items())


def test_a_seed_decides_and_its_parts_matter() -> None:
    with preserved_rng():
        seed_rng(5)
        first = draw()
        seed_rng(5)
        assert draw() == first
    seeds = {derive_seed(s, e) for s in range(10) for e in range(10)}
    assert len(seeds) == 100
    assert all(0 <= s < 2**63 for s in seeds)
