from __future__ import annotations

from itertools import combinations

import pytest
import torch

from billhook.errors import InputError
from billhook.graph.patterns import parse_pattern
from billhook.graph.structure import Structure
from tests.unit.sparse.patterns.made_weights import error, projected, weight


def test_the_two_largest_of_four_stay() -> None:
    w = torch.tensor([[1.0, -3.0, 2.0, 0.5, 4.0, 4.0, 4.0, -5.0]])[:, :, None]
    expected = torch.tensor([[0.0, -3.0, 2.0, 0.0, 4.0, 0.0, 0.0, -5.0]])[:, :, None]
    assert torch.equal(projected(parse_pattern("2:4"), w, 0.5), expected)


@pytest.mark.parametrize(
    ("n", "m", "inputs"), [(2, 4, 8), (1, 4, 8), (3, 5, 10), (2, 4, 7), (2, 4, 5), (2, 4, 3)]
)
def test_nothing_is_nearer(n: int, m: int, inputs: int) -> None:
    w = weight(2, inputs, 3)
    least = 0.0
    for row in w.transpose(1, 2).reshape(-1, inputs):
        for group in row.split(m):
            leave = max(0, len(group) - n)
            least += min(float(group[list(c)].square().sum()) for c in combinations(range(len(group)), leave))
    pattern = parse_pattern(f"{n}:{m}")
    assert error(pattern, w, 0.5) == pytest.approx(least)
    s = Structure(pattern, (2, inputs, 3), pattern.choose(w, 0.0))
    assert pattern.sparsities((2, inputs, 3)) == pytest.approx((s.sparsity, s.sparsity))


def test_the_sparsity_that_is_asked_for_changes_nothing() -> None:
    w, pattern = weight(4, 8, 9), parse_pattern("2:4")
    assert torch.equal(projected(pattern, w, 0.0), projected(pattern, w, 0.9))
    assert pattern.sparsities((4, 8, 9)) == (0.5, 0.5)


def test_a_smaller_last_group_is_kept_or_refused() -> None:
    refuse = parse_pattern("n_m:remainder=refuse")
    assert refuse.refusal((4, 8, 1)) is None
    assert refuse.refusal((4, 6, 1)) == "groups of 4 inputs do not divide 6 inputs"
    assert parse_pattern("2:4").refusal((4, 6, 1)) is None


@pytest.mark.parametrize("text", ["4:4", "5:4", "0:4", "2:1"])
def test_impossible_numbers_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="pattern"):
        parse_pattern(text)
