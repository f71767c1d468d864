from __future__ import annotations

import numpy as np

from billhook.allocate.families.global_ import Global

EVEN, UNEVEN = np.full(4, 7.0), np.array([0.1, 0.2, 0.3, 3.4])  # means 7 and 1


def test_units_leave_where_scores_are_uneven() -> None:
    wanted = Global(floor=0.0).wanted([EVEN, UNEVEN], np.array([5 / 8]))
    assert wanted.tolist() == [[4, 1]]


def test_scales_of_groups_do_not_matter_unless_asked() -> None:
    amounts = np.linspace(0, 1, 9)
    scaled = Global().wanted([EVEN, UNEVEN * 1e6], amounts)
    assert np.array_equal(scaled, Global().wanted([EVEN, UNEVEN], amounts))
    by_value = Global(normalize="none", floor=0.0).wanted([EVEN, UNEVEN * 1e6], np.array([0.5]))
    assert by_value.tolist() == [[0, 4]]


def test_no_group_falls_below_its_share_of_the_floor() -> None:
    dead, alive = np.zeros(8), np.ones(8)
    amounts = np.array([0.0, 0.5, 1.0])
    assert Global(floor=0.0).wanted([dead, alive], amounts)[:, 0].tolist() == [0, 0, 8]
    assert Global(floor=0.5).wanted([dead, alive], amounts)[:, 0].tolist() == [0, 2, 8]
