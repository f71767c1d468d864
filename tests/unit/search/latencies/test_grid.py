"""Tables of times: exact at their points, monotone between them, and refused when damaged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from billhook.errors import StorageError
from billhook.search.latencies.grid import Grid, Interpolation, monotone, spaced

OUTPUTS, INPUTS, DENSITIES = (4.0, 8.0, 32.0), (3.0, 16.0), (0.1, 0.5, 0.6, 1.0)


def rising(seed: int, *sizes: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return random times that rise along every axis."""
    times = np.random.default_rng(seed).random(sizes)
    for axis in range(len(sizes)):
        times = times.cumsum(axis)
    return times


def grid(seed: int) -> Grid:
    return Grid.of(OUTPUTS, INPUTS, DENSITIES, rising(seed, 3, 2, 4))


def columns(*sizes: float) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    return [np.array([[size]]) for size in sizes]


def test_the_points_of_a_grid_have_exactly_its_times() -> None:
    given = grid(0)
    at = Interpolation([given])
    for i, outputs in enumerate(OUTPUTS):
        for j, inputs in enumerate(INPUTS):
            for k, density in enumerate(DENSITIES):
                assert at(*columns(outputs, inputs, density))[0, 0] == given.seconds[i][j][k]


def test_between_points_by_hand() -> None:
    seconds = np.array([[[1.0, 2.0], [2.0, 4.0]], [[3.0, 6.0], [5.0, 9.0]]])
    at = Interpolation([Grid.of((8, 16), (4, 8), (0.5, 1), seconds)])
    assert at(*columns(12, 4, 1))[0, 0] == 4.0  # halfway from 2 to 6
    assert at(*columns(8, 5, 0.5))[0, 0] == 1.25  # a quarter of the way from 1 to 2
    assert at(*columns(12, 6, 0.75))[0, 0] == 4.0  # the mean of all eight
    assert at(*columns(4, 4, 0.1))[0, 0] == 1.0  # beyond the border: its value
    assert at(*columns(64, 64, 1))[0, 0] == 9.0


def test_layers_with_grids_of_other_sizes_are_interpolated_together() -> None:
    small = Grid.of((5,), (1,), (0.5, 1), np.array([[[1.0, 3.0]]]))
    alone, other = Interpolation([grid(1)]), np.random.default_rng(1)
    sizes = [other.uniform(*span, (6, 1)) for span in ((4, 32), (3, 16), (0.1, 1))]
    together = Interpolation([small, grid(1), small])
    found = together(*(np.repeat(s, 3, axis=1) for s in sizes))
    assert np.array_equal(found[:, 1], alone(*sizes)[:, 0])
    assert found[:, 0] == pytest.approx(np.interp(sizes[2][:, 0], (0.5, 1), (1, 3)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_times_never_fall_along_an_axis(axis: int) -> None:
    rng, at = np.random.default_rng(axis), Interpolation([grid(2)])
    low, high = np.array([2, 1, 0.05]), np.array([40, 20, 1])
    for _ in range(20):
        sizes = [np.full((50, 1), size) for size in rng.uniform(low, high)]
        sizes[axis] = np.linspace(low[axis], high[axis], 50)[:, None]
        times = at(*sizes)[:, 0]
        assert (np.diff(times) >= -1e-15 * times[1:]).all()
        assert times[-1] > times[0]


def test_noise_is_taken_out_and_times_without_noise_stay() -> None:
    times = rising(3, 4, 3, 5)
    assert np.array_equal(monotone(times), times)
    noisy = times * np.random.default_rng(0).normal(1, 0.1, times.shape)
    found = monotone(noisy)
    for axis in range(3):
        assert (np.diff(found, axis=axis) >= 0).all()
    assert np.abs(found / times - 1).mean() < np.abs(noisy / times - 1).mean()
    assert monotone(np.array([1.0, 4.0, 2.0, 5.0])).tolist() == [1.0, 3.0, 3.0, 5.0]


def test_values_are_spaced_with_both_ends() -> None:
    assert spaced((1, 2, 3), 4) == [1, 2, 3]
    assert spaced(tuple(range(1, 17)), 4) == [1, 6, 11, 16]
    assert spaced((0.1, 0.2, 0.3), 2) == [0.1, 0.3]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"outputs": (4.0, 4.0, 8.0)}, "outputs: must rise"),
        ({"densities": ()}, "densities: must rise"),
        ({"inputs": (3.0, 8.0, 16.0)}, "every point"),
        ({"seconds": (((1.0, -1.0),),)}, "every point"),
        ({"outputs": (1.0,), "inputs": (1.0,), "densities": (1.0,), "seconds": (((-1.0,),),)}, "at least 0"),
        ({"outputs": (1.0,), "inputs": (1.0,), "seconds": (((4.0, 3.0, 5.0, 6.0),),)}, "must not fall"),
    ],
)
def test_a_damaged_grid_is_refused(wrong: dict[str, Any], message: str) -> None:
    given = grid(0)
    with pytest.raises(StorageError, match=message):
        Grid(**{**given.__dict__, **wrong})
