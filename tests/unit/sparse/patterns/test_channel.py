from __future__ import annotations

import pytest
import torch

from billhook.graph.patterns import parse_pattern
from tests.unit.sparse.patterns.made_weights import error, least_error, mask_of, weight

PATTERN = parse_pattern("channel")


@pytest.mark.parametrize("leave", [1, 2, 4])
def test_nothing_is_nearer(leave: int) -> None:
    w = weight(3, 5, 4)
    units = [mask_of(w, slice(None), i) for i in range(5)]
    assert error(PATTERN, w, leave / 5) == pytest.approx(least_error(w, units, leave))


def test_norms_are_those_of_inputs() -> None:
    w = weight(3, 5, 4)
    torch.testing.assert_close(PATTERN.norms(w), w.transpose(0, 1).flatten(1).norm(dim=1))


def test_groups_read_different_channels() -> None:
    assert PATTERN.refusal((8, 4, 9)) is None
    assert "4 groups" in str(PATTERN.refusal((8, 4, 9), groups=4))
