from __future__ import annotations

import numpy as np
import pytest

from billhook.allocate.costs import PlanCosts, Work, fitted
from tests.unit.allocate.blocks import Blocks
from tests.unit.allocate.two_layers import TwoLayers

MACS, LAYERS = np.array([100.0, 30.0, 60.0]), np.array([20.0, 20.0, 10.0])


def test_other_groups_keep_their_size_and_dropped_ones_nothing() -> None:
    costs = PlanCosts(Blocks(), ["block0", "block2"], ["block1"])
    found = costs.of(np.array([[4, 4], [1, 0]]), ("macs", "layers"))
    assert found["macs"].tolist() == [30 * 4 + 8 * (16 + 4), 30 * 4 + 8 * 4]
    assert found["layers"].tolist() == [6, 4]
    assert costs.original(("layers",))["layers"].tolist() == [8]
    assert costs.dropped == {"block1": 3}


def test_work_adds_what_every_layer_takes() -> None:
    costs = PlanCosts(Blocks(), Blocks.group_ids)
    counts = np.array([[4, 4, 3, 4], [4, 0, 3, 4]])
    macs = costs.of(counts, ("macs",))["macs"]
    assert costs.work(counts, Work()).tolist() == macs.tolist()
    assert costs.work(counts, Work(2.0, 10.0, 1.0)).tolist() == (2 * macs + [81, 61]).tolist()


def test_work_of_macs_asks_for_nothing_else() -> None:
    costs = PlanCosts(TwoLayers(), ["a", "b"])  # which knows no layers
    assert costs.work(np.array([[1, 1]]), Work()).tolist() == [100]


@pytest.mark.parametrize("truth", [(0.5, 0.4, 0.1), (1.0, 0.0, 0.0), (0.3, 0.0, 0.7), (0.2, 0.8, 0.0)])
def test_a_fit_finds_what_networks_take(truth: tuple[float, float, float]) -> None:
    a, b, c = truth
    work = fitted(MACS, LAYERS, a * MACS / 100 + b * LAYERS / 20 + c)
    assert (work.per_mac * 100, work.per_layer * 20, work.fixed) == pytest.approx((a, b, c), abs=1e-9)


def test_nothing_is_taken_to_save_negative_time() -> None:
    work = fitted(MACS, LAYERS, np.array([1.0, 1.05, 0.5]))  # the narrow network came out slower
    assert work.per_mac == pytest.approx(0.01 / 100)
    assert work.per_layer > 0
    assert work.fixed >= 0
