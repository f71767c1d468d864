from __future__ import annotations

import numpy as np

from billhook.allocate.families.uniform import Uniform
from billhook.allocate.path import Path
from tests.unit.allocate.two_layers import GROUPS, SCORES, TwoLayers


def _path(multiple: int = 8) -> Path:
    return Path(
        GROUPS, list(SCORES.values()), Uniform(), TwoLayers(), lambda channels: channels % multiple == 0
    )


def test_counts_are_rounded_and_run_from_smallest_to_full() -> None:
    assert _path().counts([0.0, 0.4, 1.0]).tolist() == [[8, 8], [24, 16], [64, 32]]


def test_costs_leave_other_groups_whole() -> None:
    costs = _path().cost(np.array([[8, 8], [64, 32]]), ("macs", "size"))
    assert costs["macs"].tolist() == [6400, 204800]
    assert costs["size"].tolist() == [4 * 88, 4 * 384]


def test_the_best_units_are_kept() -> None:
    keep = _path().keep(np.array([2, 3]))
    assert np.flatnonzero(keep["a"]).tolist() == [62, 63]
    assert np.flatnonzero(keep["b"]).tolist() == [0, 1, 2]


def test_what_fits_decides_the_widths() -> None:
    path = Path(GROUPS, list(SCORES.values()), Uniform(), TwoLayers(), lambda channels: channels in (4, 16))
    assert [a.tolist() for a in path.allowed] == [[4, 16, g.size] for g in GROUPS]


def test_no_groups_is_a_path_with_one_network() -> None:
    path = Path([], [], Uniform(), TwoLayers(), lambda channels: True)
    assert path.counts([0.0, 1.0]).shape == (2, 0)
    assert path.cost(path.counts(0.0), ("macs",))["macs"].tolist() == [204800]


def test_dropped_groups_have_no_units_in_any_cost() -> None:
    path = Path(GROUPS[1:], [SCORES["b"]], Uniform(), TwoLayers(), lambda c: True, ["a"])
    counts = path.counts([0.0, 1.0])
    assert counts.tolist() == [[1], [32]]
    assert path.cost(counts, ("macs", "params"))["params"].tolist() == [10, 320]
    assert path.original(("params",)) == {"params": 384}
    assert {name: int(k.sum()) for name, k in path.keep(counts[1]).items()} == {"a": 0, "b": 32}
