"""An agent's own random generators: libraries for agents draw from the global ones, which others use, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from billhook.train.rng import rng_state, seed_rng, set_rng_state

T = TypeVar("T")


class OwnRandomness:
    """Global random state and number of threads while an agent is at work.

    What it draws depends on its seed alone, whatever evaluations draw in between; and nobody else notices.

    Args:
        seed: Of Python's, numpy's and torch's generators.
        threads: Of torch; more than one does not pay for an agent's networks.
    """

    def __init__(self, seed: int, threads: int = 1) -> None:
        self._seed, self._threads = seed, threads
        self._outside = rng_state(), torch.get_num_threads()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Seed the generators for the block; afterwards they are as they were."""
        self._outside = rng_state(), torch.get_num_threads()
        seed_rng(self._seed)
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            state, threads = self._outside
            set_rng_state(state)
            torch.set_num_threads(threads)

    def outside(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, called as if from outside the block that this is called in."""
        own = rng_state()
        state, threads = self._outside
        set_rng_state(state)
        torch.set_num_threads(threads)
        try:
            return call()
        finally:
            self._outside = rng_state(), torch.get_num_threads()
            set_rng_state(own)
            torch.set_num_threads(self._threads)
