from __future__ import annotations

from dataclasses import replace

import pytest

from billhook.report.view import ratio, verdict, view, zeros
from billhook.results import Check, Measurement
from billhook.run_record import BudgetEntry, Results, Row, Run, Sparsity
from tests.unit.report.fabricated import DIRECTORY, one_run, replace_results


def test_the_cards_are_speed_accuracy_size_and_macs() -> None:
    cards = view(one_run()).cards
    assert [(c.title, c.figure, c.tone) for c in cards] == [
        ("Latency", "2.31× faster", "good"),
        ("Accuracy", "−0.44 points", "bad"),
        ("File size", "3.05× smaller", "good"),
        ("MACs", "2.82× fewer", "good"),
    ]
    assert cards[0].caption == "8.12 ms → 3.52 ms; 2.30× by the fastest runs"


def test_a_line_has_value_range_and_spread_of_both_networks() -> None:
    line = view(one_run()).lines[0]
    assert (line.before, line.before_range, line.before_spread) == (
        "8.12 ms",
        "7.98–8.91 ms, median of 60",
        "± 5.7 %",
    )
    assert (line.after, line.change) == ("3.52 ms", "2.31× faster")


def test_the_speed_up_is_the_one_of_the_interleaved_run() -> None:
    run = one_run()
    assert ratio(run.results, "latency") == 2.31
    without = replace_results(run, latency_ratio=None)
    assert ratio(without.results, "latency") == pytest.approx(8.12 / 3.52)
    assert ratio(replace_results(run, rows=(), latency_ratio=None).results, "latency") is None


def test_conditions_are_told_once_and_differences_as_before_and_after() -> None:
    timing, accuracy, *_ = view(one_run()).conditions
    assert timing.titles == "Latency, Throughput, Peak process memory"
    assert ("threads", "1") in timing.items
    assert ("fastest run", "7.91 ms → 3.44 ms") in timing.items
    assert accuracy.titles == "Accuracy"
    assert ("correct", "9312 → 9268") in accuracy.items


def test_a_machine_is_told_only_where_it_is_not_the_one_of_the_environment() -> None:
    run = one_run()
    assert "made-up processor" not in str(view(run).conditions)
    assert "made-up processor" in str(view(replace(run, environment={"cpu": "another"})).conditions)


def test_a_budget_line_says_what_was_asked_and_what_was_used() -> None:
    latency, params = view(one_run()).budget
    assert (latency.asked, latency.bound, latency.value, latency.used, latency.met) == (
        "50% of the original",
        "4.06 ms",
        "3.52 ms",
        "86.7%",
        True,
    )
    assert (params.asked, params.bound) == ("absolute", "100 k")


def test_a_missed_budget_is_not_called_met() -> None:
    run = replace_results(one_run(), budget_met=(BudgetEntry("macs", 100.0, 140.0, False),))
    (line,) = view(run).budget
    assert (line.used, line.met) == ("140.0%", False)


@pytest.mark.parametrize(
    ("check", "tone", "title"),
    [
        (None, "even", "not verified"),
        (Check(True, True, 1e-6, 1e-7, 1e-4), "good", "exact"),
        (Check(False, True, 1e-6, 1e-7, 1e-4, mixed=("norm",)), "good", "agrees"),
        (Check(False, False, 1.0, 0.5, 1e-4, "stages.1.conv"), "bad", "outputs differ"),
    ],
)
def test_the_verdict_follows_the_check(check: Check | None, tone: str, title: str) -> None:
    shown = verdict(check)
    assert (shown.tone, shown.title) == (tone, title)


def test_the_verdict_names_the_first_layer_that_differs_and_the_mixed_groups() -> None:
    assert "stages.1.conv" in verdict(Check(False, False, 1.0, 0.5, 1e-4, "stages.1.conv")).sentence
    assert ("mixed groups", "norm") in verdict(Check(False, True, 0, 0, 1e-4, mixed=("norm",))).items


def test_groups_are_cut_whole_or_frozen_with_the_reason() -> None:
    groups = {g.id: g for g in view(one_run()).groups}
    assert groups["stages.0.0.conv1"].state == "cut"
    assert groups["stem"].state == "whole"
    assert (groups["classifier"].state, groups["classifier"].why) == (
        "frozen",
        "output of the network (net.py:42)",
    )
    assert groups["attention.heads"].why == "mixing operator: softmax over heads (net.py:31)"


def test_a_run_that_reached_nothing_can_be_shown() -> None:
    shown = view(Run(DIRECTORY, Results("early", "net", "", "yesterday", "failed")))
    assert shown.created == "yesterday"
    assert not shown.cards
    assert not shown.lines
    assert shown.settings == (("model", "net"),)


def test_a_value_of_zero_has_no_ratio() -> None:
    zero = Measurement(0.0, "B")
    run = replace_results(one_run(), rows=(Row("size", zero, zero, "lower"),))
    assert ratio(run.results, "size") is None
    assert view(run).lines[0].change == "–"


@pytest.mark.parametrize(
    ("sparsity", "words"),
    [
        (None, ""),
        (Sparsity(3, 1000, 200, 200), "80.0 % of 1.00 k weights in 3 tensors are zero."),
        (
            Sparsity(3, 1000, 200, 200, held=True),
            "80.0 % of 1.00 k weights in 3 tensors are zero; fine-tuning kept every pattern, bit by bit.",
        ),
        (
            Sparsity(1, 1000, 500, 50, held=False),
            "50.0 % of 1.00 k weights in 1 tensor are zero; the others are stored as 50 numbers; "
            "fine-tuning did not keep every pattern.",
        ),
    ],
)
def test_zeros_are_told_in_a_sentence(sparsity: Sparsity | None, words: str) -> None:
    assert zeros(sparsity) == words


def test_zeros_put_the_stored_weights_among_the_cards() -> None:
    stored = Row("stored", Measurement(1000, "B"), Measurement(200, "B"), "lower")
    rows = (*one_run().results.rows, stored)
    assert "Stored weights" not in [c.title for c in view(replace_results(one_run(), rows=rows)).cards]
    sparse = replace_results(one_run(), rows=rows, sparsity=Sparsity(3, 1000, 200, 200))
    assert [c.title for c in view(sparse).cards] == ["Latency", "Accuracy", "Stored weights", "MACs"]


def test_sizes_after_gzip_have_lines_of_their_own() -> None:
    sizes = (("size_gzip", 900, 300), ("stored", 1000, 200), ("stored_gzip", 900, 190))
    rows = tuple(Row(m, Measurement(a, "B"), Measurement(b, "B"), "lower") for m, a, b in sizes)  # type: ignore[arg-type]
    lines = view(replace_results(one_run(), rows=rows)).lines
    assert [(line.title, line.change) for line in lines] == [
        ("File size after gzip", "3.00× smaller"),
        ("Stored weights", "5.00× smaller"),
        ("Stored weights after gzip", "4.74× smaller"),
    ]


def bytes_of(metric: str, after: float) -> Row:
    return Row(metric, Measurement(1000.0, "B"), Measurement(after, "B"), "lower")


def test_zeros_do_not_make_the_weights_in_memory_smaller() -> None:
    sparsity = Sparsity(1, 1000, 200, 200)
    rows = (bytes_of("bytes", 1000.0), bytes_of("encoded", 250.0))
    lines = view(replace_results(one_run(), rows=rows, sparsity=sparsity)).lines
    assert [(line.title, line.change) for line in lines] == [
        ("Weights in memory", "unchanged"),
        ("Weights, encoded", "4.00× smaller"),
    ]


def test_encoded_bytes_of_an_older_run_are_not_called_memory() -> None:
    run = replace_results(one_run(), rows=(bytes_of("bytes", 250.0),), sparsity=Sparsity(1, 1000, 200, 200))
    assert [line.title for line in view(run).lines] == ["Weights, encoded"]
    assert [c.titles for c in view(run).conditions] in ([], ["Weights, encoded"])
    dense = replace_results(run, sparsity=None)
    assert [line.title for line in view(dense).lines] == ["Weights in memory"]
