from __future__ import annotations

import numpy as np
import pytest

from billhook.allocate.families.uniform import Uniform
from billhook.allocate.formula import fill, largest_amount, usage, within
from billhook.allocate.path import Path
from tests.unit.allocate.two_layers import GROUPS, SCORES, TwoLayers


def _path(multiple: int) -> Path:
    return Path(
        GROUPS, list(SCORES.values()), Uniform(), TwoLayers(), lambda channels: channels % multiple == 0
    )


@pytest.mark.parametrize("multiple", [1, 4, 8])
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_no_larger_amount_fits(multiple: int, fraction: float) -> None:
    path, limits = _path(multiple), {"macs": 204800 * fraction}
    amount = largest_amount(path, limits)
    assert within(path, path.counts(amount), limits)[0]
    larger = path.counts(np.linspace(amount, 1, 10_000))
    larger = larger[(larger != path.counts(amount)).any(1)]
    assert not within(path, larger, limits).any()


def test_filling_grows_single_groups_up_to_the_limit() -> None:
    path, limits = _path(8), {"macs": 100 * 48 * 16.0}
    base = path.counts(largest_amount(path, limits))[0]
    grown = fill(path, largest_amount(path, limits), limits)
    assert (grown >= base).all()
    assert usage(path, base, limits) < usage(path, grown, limits) == 1.0


def test_all_limits_hold_at_once() -> None:
    path = _path(1)
    limits = {"macs": 0.5 * 204800, "params": 0.4 * 384}
    counts = fill(path, largest_amount(path, limits), limits)
    assert within(path, counts[None], limits)[0]
    assert usage(path, counts, limits) > 0.95


def test_everything_stays_if_everything_fits() -> None:
    assert largest_amount(_path(8), {"macs": 204800.0}) == 1.0
    assert largest_amount(_path(8), {}) == 1.0


def test_many_networks_are_evaluated_at_once() -> None:
    costs = TwoLayers()
    path = Path(GROUPS, list(SCORES.values()), Uniform(), costs, lambda channels: 1)
    largest_amount(path, {"macs": 100_000.0})
    assert costs.calls <= 4
