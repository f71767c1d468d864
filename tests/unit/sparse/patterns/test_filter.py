from __future__ import annotations

import pytest
import torch

from billhook.graph.patterns import parse_pattern
from tests.unit.sparse.patterns.made_weights import error, least_error, mask_of, projected, weight

PATTERN = parse_pattern("filter")


@pytest.mark.parametrize("leave", [1, 2, 4])
def test_nothing_is_nearer(leave: int) -> None:
    w = weight(5, 3, 4)
    units = [mask_of(w, o) for o in range(5)]
    assert error(PATTERN, w, leave / 5) == pytest.approx(least_error(w, units, leave))


def test_rows_leave_whole_and_one_stays() -> None:
    w = weight(5, 3, 4)
    z = projected(PATTERN, w, 0.99)
    assert ((z != 0).flatten(1).sum(1)).tolist().count(12) == 1
    assert int((z != 0).sum()) == 12


def test_a_convolution_in_groups_has_filters_too() -> None:
    assert PATTERN.refusal((8, 1, 9), groups=8) is None


def test_norms_are_those_of_rows() -> None:
    w = weight(5, 3, 4)
    torch.testing.assert_close(PATTERN.norms(w), w.flatten(1).norm(dim=1))
