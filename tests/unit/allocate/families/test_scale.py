from __future__ import annotations

import numpy as np
import pytest

from billhook.allocate.families._scale import normalized


@pytest.mark.parametrize(
    ("by", "expected"), [("mean", [0.5, 1.5]), ("max", [1 / 3, 1.0]), ("none", [1.0, 3.0])]
)
def test_normalisation_by_hand(by: str, expected: list[float]) -> None:
    np.testing.assert_allclose(normalized(np.array([1.0, 3.0]), by), expected)


def test_a_group_of_zeros_stays_zero() -> None:
    assert normalized(np.zeros(3), "mean").tolist() == [0, 0, 0]
