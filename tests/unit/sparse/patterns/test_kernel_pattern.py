from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from billhook.errors import InputError
from billhook.graph.patterns import parse_pattern
from billhook.graph.structure import Structure
from billhook.sparse.patterns.kernel_pattern import KernelPattern, common_patterns
from tests.unit.sparse.patterns.made_weights import error, projected, weight


def kernel(*positions: int, size: float = 1.0) -> torch.Tensor:
    k = torch.full((9,), 0.01, dtype=torch.float64)
    k[list(positions)] = size
    return k


def test_the_most_frequent_patterns_make_the_library() -> None:
    kernels = torch.stack(
        [kernel(0, 1, 2, 3)] * 3 + [kernel(4, 5, 6, 7)] * 2 + [kernel(5, 6, 7, 8, size=9.0)]
    )
    library = common_patterns(kernels.square().numpy(), entries=4, most=2)
    assert [np.flatnonzero(flags).tolist() for flags in library] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_of_equally_frequent_patterns_the_stronger_then_the_earlier_comes_first() -> None:
    kernels = torch.stack([kernel(0, 1), kernel(2, 3, size=3.0), kernel(5, 6), kernel(7, 8)])
    library = common_patterns(kernels.square().numpy(), entries=2, most=9)
    assert [np.flatnonzero(flags).tolist() for flags in library] == [[2, 3], [0, 1], [5, 6], [7, 8]]


def test_of_equal_weights_the_first_are_natural_and_zero_kernels_have_no_say() -> None:
    kernels = torch.cat([torch.zeros(5, 9), torch.ones(2, 9)])
    assert np.flatnonzero(common_patterns(kernels.numpy(), 4, 8)[0]).tolist() == [0, 1, 2, 3]
    kernels[5:, 8] = 2.0
    library = common_patterns(kernels.numpy(), 4, 8)
    assert [np.flatnonzero(flags).tolist() for flags in library] == [[0, 1, 2, 8]]


@pytest.mark.parametrize("leave", range(6))
def test_nothing_is_nearer_with_this_library(leave: int) -> None:
    w = weight(3, 2, 9)
    pattern = KernelPattern(entries=4, library=3)
    parts = pattern.choose(w, leave / 6)
    kernels = w.reshape(6, 9).square()
    best = [max(float(k[torch.from_numpy(f)].sum()) for f in parts["library"]) for k in kernels]
    kept = max(sum(best[i] for i in stay) for stay in combinations(range(6), 6 - leave))
    assert error(pattern, w, leave / 6) == pytest.approx(float(kernels.sum()) - kept)
    assert int((parts["choice"] == 3).sum()) == leave


def test_a_library_of_all_patterns_keeps_the_largest_weights() -> None:
    w = weight(4, 4, 9)
    largest = w.abs().topk(4, dim=2).indices
    mask = torch.zeros(w.shape, dtype=torch.bool).scatter_(2, largest, True)
    assert torch.equal(projected(KernelPattern(library=126), w, 0.0), w * mask)


def test_zeros_are_counted_in_weights_and_kernels() -> None:
    pattern, shape = KernelPattern(), (16, 16, 9)
    assert pattern.sparsities(shape) == pytest.approx((5 / 9, 1 - 4 / 9 / 256))
    assert pattern.unit_sparsity(5 / 9, shape) == pytest.approx(0.0)
    assert pattern.unit_sparsity(0.1, shape) == 0.0
    for wanted in (0.6, 0.8, 0.95):
        parts = pattern.choose(weight(*shape), pattern.unit_sparsity(wanted, shape))
        assert Structure(pattern, shape, parts).sparsity == pytest.approx(wanted, abs=1 / 256)


def test_the_energy_of_a_kernel_is_what_its_best_pattern_keeps() -> None:
    w = weight(4, 4, 9)
    pattern = KernelPattern()
    kept = projected(pattern, w, 0.0)
    torch.testing.assert_close(pattern.units(w.square()), kept.square().sum(2).flatten())
    torch.testing.assert_close(pattern.norms(w), kept.reshape(16, 9).norm(dim=1))


def test_a_library_can_be_kept() -> None:
    pattern = KernelPattern(library=2)
    first = pattern.choose(weight(4, 4, 9, seed=0), 0.3)
    other = weight(4, 4, 9, seed=5)
    again = pattern.settled(first).choose(other, 0.3)
    assert np.array_equal(again["library"], first["library"])
    assert not np.array_equal(pattern.choose(other, 0.3)["library"], first["library"])
    fixed = pattern.settled(first)
    assert parse_pattern(str(fixed)) == fixed


@pytest.mark.parametrize(
    "fixed", ["o--------", "oooo----", "oooo-----/oooo-----", "xxxx-----", "/", "oooo-----/", 7]
)
def test_a_wrong_library_is_refused(fixed: object) -> None:
    with pytest.raises(InputError):
        KernelPattern(fixed=fixed)  # type: ignore[arg-type]


def test_a_library_larger_than_allowed_is_refused() -> None:
    with pytest.raises(InputError, match="at most 1 pattern"):
        KernelPattern(library=1, fixed="oooo-----/-oooo----")


def test_only_kernels_of_nine_positions_fit() -> None:
    assert KernelPattern().refusal((8, 8, 9)) is None
    assert KernelPattern().refusal((8, 1, 9), groups=8) is None
    assert "25 positions" in str(KernelPattern().refusal((8, 8, 25)))
    assert "1 positions" in str(KernelPattern().refusal((8, 8, 1)))
