from __future__ import annotations

import pytest
import torch

from billhook.graph.patterns import parse_pattern
from tests.unit.sparse.patterns.made_weights import error, least_error, mask_of, weight

PATTERN = parse_pattern("column")


@pytest.mark.parametrize("leave", [1, 3, 5])
def test_nothing_is_nearer(leave: int) -> None:
    w = weight(3, 2, 3)
    units = [mask_of(w, slice(None), i, p) for i in range(2) for p in range(3)]
    assert error(PATTERN, w, leave / 6) == pytest.approx(least_error(w, units, leave))


def test_norms_are_those_of_the_columns_of_the_matrix() -> None:
    w = weight(3, 2, 3)
    torch.testing.assert_close(PATTERN.norms(w), w.reshape(3, 6).norm(dim=0))


def test_groups_have_no_columns_in_common() -> None:
    assert "2 groups" in str(PATTERN.refusal((8, 4, 9), groups=2))
