from __future__ import annotations

from billhook.report.comparison import comparison
from billhook.run_record import BudgetEntry, Results, Run
from tests.unit.report.fabricated import DIRECTORY, one_run, replace_results, several_runs


def test_there_is_one_line_per_run_in_the_order_given() -> None:
    lines = comparison(several_runs())
    assert [line.name for line in lines] == ["made-up-run", "gentle", "random", "hard"]
    assert (lines[0].speed_up, lines[0].accuracy, lines[0].accuracy_change, lines[0].size) == (
        "2.31×",
        "92.68 %",
        "−0.44 points",
        "3.05×",
    )
    assert [line.verified for line in lines] == ["yes", "yes", "–", "yes"]
    assert lines[3].status == "interrupted"


def test_bounds_are_written_in_their_units() -> None:
    budget = {"latency": "0.008s", "size": "2000000.0B", "params": 0.5, "macs": "1000000.0", "odd": "\x1b[2J"}
    (line,) = comparison([replace_results(one_run(), budget=budget)])
    assert line.budget == (
        "latency ≤ 8.00 ms",
        "size ≤ 2.00 MB",
        "params ≤ 50%",
        "macs ≤ 1.00 M",
        "odd ≤ \\x1b[2J",
    )


def test_one_missed_bound_means_not_met() -> None:
    met = (BudgetEntry("macs", 1.0, 0.5, True), BudgetEntry("params", 1.0, 1.5, False))
    (line,) = comparison([replace_results(one_run(), budget_met=met)])
    assert line.budget_met == "no"


def test_what_a_run_did_not_reach_is_a_dash() -> None:
    (line,) = comparison([Run(DIRECTORY, Results("early", "net", "", "yesterday", "failed"))])
    shown = {line.speed_up, line.latency, line.accuracy, line.accuracy_change, line.size, line.budget_met}
    assert shown == {"–"}
