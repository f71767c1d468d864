from __future__ import annotations

import re

import pytest

from billhook.allocate.budget import Bound, Budget
from billhook.errors import InputError
from billhook.results import Cost


@pytest.mark.parametrize(
    ("value", "bound"),
    [
        (0.5, Bound(0.5, True)),
        ("50%", Bound(0.5, True)),
        ("0.5", Bound(0.5, True)),
        (1, Bound(1.0, True)),
        (2_000_000, Bound(2e6, False)),
        ("1.5M", Bound(1.5e6, False)),
    ],
)
def test_numbers_up_to_one_are_fractions_of_the_original(value: float | str, bound: Bound) -> None:
    assert Budget(params=value).bounds == {"params": bound}


def test_units_of_size_and_latency_are_understood() -> None:
    assert Budget(size="2MB", latency="8ms").bounds == {
        "size": Bound(2e6, False),
        "latency": Bound(0.008, False),
    }


def test_text_and_dictionary_round_trip() -> None:
    budget = Budget.parse("latency=8ms, macs=50%")
    assert budget == Budget(latency="8ms", macs=0.5)
    assert Budget.from_dict(budget.to_dict()) == budget
    assert re.fullmatch(r"macs ≤ 50%, latency ≤ 8(\.0+)? ms", str(budget))


@pytest.mark.parametrize("value", [0, -1, "0", float("nan"), float("inf"), True, [0.5], "fast", "8ms"])
def test_bounds_that_make_no_sense_are_refused(value: object) -> None:
    with pytest.raises(InputError):
        Budget(macs=value)


def test_a_misspelt_metric_gets_a_suggestion() -> None:
    with pytest.raises(InputError, match="unknown budget metric 'mac'; did you mean 'macs'"):
        Budget.parse("mac=0.5")


def test_an_empty_budget_lists_the_metrics() -> None:
    with pytest.raises(InputError, match="at least one bound; metrics: macs, params, size, latency"):
        Budget()


def test_fractions_stay_those_of_the_original_where_another_network_is_pruned_in_its_place() -> None:
    original, other = Cost(1000, 100, 400, 1), Cost(2000, 100, 500, 1)
    budget = Budget(macs=0.5, params=0.5, size=0.5, latency=0.5)
    bounds = budget.of(original, other).bounds
    assert bounds["macs"] == Bound(500.0, False)
    assert bounds["size"] == Bound(200.0, False)
    assert (bounds["params"], bounds["latency"]) == (Bound(0.5, True), Bound(0.5, True))
    assert budget.of(original, original) == budget


def test_a_budget_says_whether_costs_are_within_it() -> None:
    original = Cost(1000, 100, 400, 1)
    budget = Budget(macs=0.5, size="300B", latency="8ms")
    assert budget.allows(Cost(500, 200, 300, 9), original)
    assert not budget.allows(Cost(501, 50, 300, 1), original)
    assert not budget.allows(Cost(500, 50, 301, 1), original)
