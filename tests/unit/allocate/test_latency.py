from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from billhook.allocate.budget import Bound
from billhook.allocate.latency import MEASUREMENTS, Search, search

WORK = np.linspace(0.02, 1, 300)
ORIGINAL = 0.010


@dataclass(frozen=True)
class Sample:
    candidate: float
    original: float


@dataclass
class Bench:
    """A runtime whose latency is a function of work; remembers what it was asked."""

    seconds: Callable[[float], float]
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self.asked: list[tuple[int, bool]] = []
        self._rng = np.random.default_rng(self.seed)

    def __call__(self, rung: int, sure: bool) -> Sample:
        self.asked.append((rung, sure))
        factor = 1 + self.noise * self._rng.uniform(-1, 1) * (0.3 if sure else 1)
        return Sample(self.seconds(WORK[rung]) * ORIGINAL * factor, ORIGINAL)


RUNTIMES = {
    "in proportion": lambda w: w,
    "with overhead": lambda w: 0.3 + 0.7 * w,
    "gains less and less": lambda w: w**0.5,
    "in steps": lambda w: np.ceil(w * 12) / 12,
    "superlinear": lambda w: w**1.5,
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("bound", [Bound(0.5, True), Bound(0.35, True), Bound(0.0062, False)])
def test_the_bound_is_met_closely_with_few_measurements(runtime: str, bound: Bound) -> None:
    bench = Bench(RUNTIMES[runtime])
    state = search(WORK, bench, bound)
    best = state.best()
    assert best is not None
    steps = runtime == "in steps"  # has no network just below the bound
    assert (0.8 if steps else 0.85) <= state.ratio(best) <= 1
    assert len(state.samples) <= (MEASUREMENTS if steps else 5)
    assert bench.asked[-1] == (best, True)


@pytest.mark.parametrize("seed", range(20))
def test_noise_of_three_percent_does_not_break_the_bound(seed: int) -> None:
    bench = Bench(RUNTIMES["with overhead"], noise=0.03, seed=seed)
    state = search(WORK, bench, Bound(0.5, True))
    best = state.best()
    assert best is not None
    true_ratio = RUNTIMES["with overhead"](WORK[best]) / 0.5
    assert 0.85 <= true_ratio <= 1.02


def test_nothing_fits() -> None:
    state = search(WORK, Bench(RUNTIMES["with overhead"]), Bound(0.1, True))
    assert state.best() is None
    assert 0 in state.samples
    assert len(state.samples) <= MEASUREMENTS


def test_everything_fits() -> None:
    state = search(WORK, Bench(RUNTIMES["in proportion"]), Bound(0.1, False))
    assert state.best() == len(WORK) - 1


def test_the_smallest_network_may_use_the_whole_bound() -> None:
    smallest = RUNTIMES["with overhead"](WORK[0])
    state = search(WORK, Bench(RUNTIMES["with overhead"]), Bound(float(smallest), True))
    assert state.best() == 0


def test_a_confirmation_that_fails_sends_the_search_down() -> None:
    def measure(rung: int, sure: bool) -> Sample:
        return Sample(WORK[rung] * ORIGINAL * (1.1 if sure else 1.0), ORIGINAL)

    state = search(WORK, measure, Bound(0.5, True))
    best = state.best()
    assert best is not None
    assert best in state.confirmed
    assert state.ratio(best) <= 1


def test_a_runtime_that_gains_nothing_ends_the_search() -> None:
    state = search(WORK, Bench(lambda w: 1.0, noise=0.01), Bound(0.5, True))
    assert state.best() is None


def test_a_single_rung_is_measured_once_and_confirmed() -> None:
    state = search(WORK[-1:], Bench(RUNTIMES["in proportion"]), Bound(0.02, False))
    assert state.best() == 0


def test_the_next_rung_always_lies_inside_the_bracket() -> None:
    fast, slow = Sample(0.2 * ORIGINAL, ORIGINAL), Sample(ORIGINAL, ORIGINAL)
    state = Search(WORK, Bound(0.5, True), {100: fast, 103: slow})
    assert 100 < state.next_rung() < 103


def test_networks_that_timing_cannot_tell_apart_are_not_told_apart() -> None:
    fast, slow = Sample(0.4 * ORIGINAL, ORIGINAL), Sample(ORIGINAL, ORIGINAL)
    assert Search(WORK, Bound(0.5, True), {200: fast, 202: slow}).settled
    assert not Search(WORK, Bound(0.5, True), {200: fast, 220: slow}).settled
