from __future__ import annotations

import pytest
import torch

from billhook.graph.patterns import parse_pattern
from tests.unit.sparse.patterns.made_weights import error, least_error, mask_of, projected, weight

PATTERN = parse_pattern("unstructured")


def test_the_largest_magnitudes_stay() -> None:
    w = torch.tensor([[3.0, -1.0, 0.5], [-4.0, 2.0, 0.1]])[:, :, None]
    expected = torch.tensor([[3.0, 0.0, 0.0], [-4.0, 2.0, 0.0]])[:, :, None]
    assert torch.equal(projected(PATTERN, w, 0.5), expected)


@pytest.mark.parametrize("leave", range(1, 8))
def test_nothing_is_nearer(leave: int) -> None:
    w = weight(2, 2, 2)
    units = [mask_of(w, *index) for index in torch.ones(w.shape).nonzero().tolist()]
    assert error(PATTERN, w, leave / 8) == pytest.approx(least_error(w, units, leave))


def test_units_are_weights() -> None:
    w = weight(3, 4, 9)
    assert torch.equal(PATTERN.norms(w), w.abs().flatten())
    assert PATTERN.sparsities((3, 4, 9)) == (0.0, 1 - 1 / 108)
