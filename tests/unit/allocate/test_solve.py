from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from billhook.allocate.budget import Budget
from billhook.allocate.families.global_ import Global
from billhook.allocate.families.uniform import Uniform
from billhook.allocate.solve import Allocation, MeasureLatency, solve
from billhook.errors import BudgetError, InputError
from tests.unit.allocate.test_latency import ORIGINAL, Sample
from tests.unit.allocate.two_layers import GROUPS, SCORES, TwoLayers


def _solve(budget: Budget, *, multiple: int = 8, latency: MeasureLatency | None = None) -> Allocation:
    return solve(
        GROUPS,
        SCORES,
        Uniform(),
        TwoLayers(),
        budget,
        fits=lambda channels: channels % multiple == 0,
        latency=latency,
    )


def _counts(allocation: Allocation) -> dict[str, int]:
    return {name: int(k.sum()) for name, k in allocation.keep.items()}


def _latency(keep: Mapping[str, np.ndarray], sure: bool) -> Sample:
    work = keep["a"].sum() * keep["b"].sum() / (64 * 32)
    return Sample((0.2 + 0.8 * work) * ORIGINAL, ORIGINAL)


@pytest.mark.parametrize("multiple", [1, 4, 8])
@pytest.mark.parametrize("allocator", [Uniform(), Global()])
@pytest.mark.parametrize(
    "budget",
    [
        Budget(macs=0.5),
        Budget(macs=0.2, params=0.5),
        Budget(params=200),
        Budget(size="1kB"),
        Budget(macs=100_000),
    ],
)
def test_bounds_on_formulas_are_never_exceeded_and_nearly_used(
    budget: Budget, allocator: Uniform | Global, multiple: int
) -> None:
    made = solve(
        GROUPS, SCORES, allocator, TwoLayers(), budget, fits=lambda channels: channels % multiple == 0
    )
    used = {m: made.reached[m] / made.limits[m] for m in budget.bounds}
    assert max(used.values()) <= 1
    assert max(used.values()) >= (0.95 if multiple == 1 else 0.8)
    for group in GROUPS:
        kept = int(made.keep[group.id].sum())
        assert kept % multiple == 0
        assert kept >= multiple


def test_original_and_reached_costs_are_reported_in_base_units() -> None:
    made = _solve(Budget(macs=0.5, size="1kB"))
    assert made.original == {"macs": 204800, "size": 1536}
    assert made.limits == pytest.approx({"macs": 102400, "size": 1000})
    counts = _counts(made)
    assert made.reached["macs"] == 100 * counts["a"] * counts["b"]
    assert made.measured == 0


def test_a_budget_that_the_original_meets_removes_nothing() -> None:
    assert _counts(_solve(Budget(macs="1G"))) == {"a": 64, "b": 32}


def test_a_budget_out_of_reach_names_metric_bound_and_what_is_reachable() -> None:
    with pytest.raises(BudgetError, match=r"macs ≤ 2.0\d k \(1.0% of the original\) cannot be met") as caught:
        _solve(Budget(macs=0.01, params=0.9))
    assert caught.value.reachable == {"macs": 6400, "params": 88}
    assert "(3.1% of the original)" in str(caught.value)
    assert "round_to" in str(caught.value)


def test_without_groups_the_message_says_so() -> None:
    with pytest.raises(BudgetError, match="no group may be pruned"):
        solve([], {}, Uniform(), TwoLayers(), Budget(macs=0.5), fits=lambda channels: True)


def test_a_latency_bound_is_met_by_measuring() -> None:
    made = _solve(Budget(latency=0.5), multiple=4, latency=_latency)
    assert 0.85 * 0.5 <= made.reached["latency"] / made.original["latency"] <= 0.5
    assert made.limits["latency"] == pytest.approx(0.005)
    assert 1 <= made.measured <= 8


def test_latency_and_formulas_hold_together() -> None:
    loose = _solve(Budget(latency=0.5, macs=0.9), multiple=4, latency=_latency)
    assert loose.reached["latency"] <= 0.5 * ORIGINAL
    tight = _solve(Budget(latency=0.9, macs=0.2), multiple=4, latency=_latency)
    assert tight.reached["macs"] <= 0.2 * 204800
    assert tight.reached["macs"] == _solve(Budget(macs=0.2), multiple=4).reached["macs"]


def test_a_latency_out_of_reach_names_the_fastest() -> None:
    with pytest.raises(
        BudgetError, match=r"latency ≤ 1\S* ms \(10.0% of the original\).*reach 2\.\d+ ms"
    ) as caught:
        _solve(Budget(latency="1ms"), latency=_latency)
    assert caught.value.reachable["latency"] == pytest.approx(0.00225)


def test_a_latency_bound_needs_something_to_measure_with() -> None:
    with pytest.raises(InputError, match="needs a backend"):
        _solve(Budget(latency=0.5))


def test_dropped_groups_keep_nothing_and_leave_their_share_to_the_others() -> None:
    made = solve(
        GROUPS, SCORES, Uniform(), TwoLayers(), Budget(params=0.5), fits=lambda c: True, dropped={"a"}
    )
    assert _counts(made) == {"a": 0, "b": 19}  # (64 + 320) / 2 = 192 = 0 + 10 · 19 and a little
    assert made.original == {"params": 384}
    assert made.reached == {"params": 190}


def test_everything_may_be_dropped() -> None:
    made = solve(
        GROUPS, SCORES, Uniform(), TwoLayers(), Budget(params=0.5), fits=lambda c: True, dropped={"a", "b"}
    )
    assert _counts(made) == {"a": 0, "b": 0}
    assert made.reached == {"params": 0}


def test_a_dropped_group_need_not_be_one_of_those_that_share() -> None:
    made = solve(
        GROUPS[1:], SCORES, Uniform(), TwoLayers(), Budget(params=1.0), fits=lambda c: True, dropped={"a"}
    )
    assert _counts(made) == {"a": 0, "b": 32}


def test_an_unknown_dropped_group_is_an_error() -> None:
    with pytest.raises(InputError, match=r"dropped=\['c'\]"):
        solve(GROUPS, SCORES, Uniform(), TwoLayers(), Budget(params=1.0), fits=lambda c: True, dropped={"c"})


def test_a_budget_that_is_missed_without_the_dropped_groups_says_what_can_be_reached() -> None:
    with pytest.raises(BudgetError, match="the smallest allowed widths reach 10") as error:
        solve(GROUPS, SCORES, Uniform(), TwoLayers(), Budget(params=5), fits=lambda c: True, dropped={"a"})
    assert error.value.reachable == {"params": 10}


def test_latency_is_searched_without_the_dropped_groups() -> None:
    def measure(keep: Mapping[str, np.ndarray], sure: bool) -> Sample:
        assert not keep["a"].any()
        return Sample((0.2 + 0.8 * keep["b"].sum() / 32) * ORIGINAL, ORIGINAL)

    class Sum(TwoLayers):
        def evaluate(self, counts: np.ndarray, metrics: Sequence[str]) -> dict[str, np.ndarray]:
            return {m: counts[:, 0] + counts[:, 2] for m in metrics}

    made = solve(
        GROUPS,
        SCORES,
        Uniform(),
        Sum(),
        Budget(latency=0.6),
        fits=lambda c: True,
        latency=measure,
        dropped={"a"},
    )
    assert 0.5 <= made.reached["latency"] / ORIGINAL <= 0.6
    assert not made.keep["a"].any()
