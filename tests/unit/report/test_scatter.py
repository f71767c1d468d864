from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billhook.report.scatter import accuracy_latency, pareto_front
from billhook.run_record import Results, TrajectoryPoint
from tests.unit.report.fabricated import EVIL, hostile_run, one_run, several_runs
from tests.unit.report.test_figures import valid

POINTS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=20)


def results(*trajectory: TrajectoryPoint, name: str = "run") -> Results:
    return Results(name, "net", "data", "2026-01-02T03:04:05+00:00", "done", trajectory=trajectory)


def test_one_run_shows_its_way_and_labels_start_pruned_and_end() -> None:
    (trace,) = valid(accuracy_latency([one_run().results]))["data"]
    assert trace["x"][:2] == pytest.approx([8.12, 3.51])
    assert trace["y"][:2] == pytest.approx([93.12, 71.33])
    assert [t for t in trace["text"] if t] == [
        "original<br>8.12 ms, 93.12 %",
        "pruned<br>3.51 ms, 71.33 %",
        "fine-tuned epoch 8<br>3.52 ms, 92.68 %",
    ]
    assert len(trace["hovertext"]) == 10


def test_several_runs_show_their_ends_and_the_pareto_front() -> None:
    front, *runs, way = valid(accuracy_latency([r.results for r in several_runs()]))["data"]
    assert front["name"] == "Pareto front"
    assert front["y"] == pytest.approx([90.3, 92.68, 92.9, 93.12])
    assert [r["name"] for r in runs] == ["made-up-run", "gentle", "random", "hard"]
    assert [r["text"] for r in runs] == [[r["name"], ""] for r in runs]
    assert (way["name"], way["visible"], len(way["x"])) == ("on the way", "legendonly", 4 * 8)


def test_more_runs_than_colours_begin_again() -> None:
    point = TrajectoryPoint("original", 0.001, 0.5)
    figure = valid(accuracy_latency([results(point, name=str(i)) for i in range(10)]))
    colours = [t["line"]["color"] for t in figure["data"][1:]]
    assert colours[0] == colours[8] == "var(--run-1)"


@pytest.mark.parametrize(
    ("latency", "title"), [(2.0, "latency (s)"), (2e-3, "latency (ms)"), (2e-6, "latency (µs)")]
)
def test_the_axis_has_a_fitting_unit(latency: float, title: str) -> None:
    figure = valid(accuracy_latency([results(TrajectoryPoint("original", latency, 0.9))]))
    assert figure["layout"]["xaxis"]["title"]["text"] == title
    assert figure["data"][0]["x"] == pytest.approx([2.0])


def test_states_without_both_values_are_left_out() -> None:
    known = TrajectoryPoint("pruned", 0.002, 0.8)
    (trace,) = valid(accuracy_latency([results(TrajectoryPoint("original", None, 0.9), known)]))["data"]
    assert trace["x"] == pytest.approx([2.0])
    assert accuracy_latency([results(TrajectoryPoint("original", 0.1, None))]) is None
    assert accuracy_latency([results()]) is None


def test_texts_are_no_markup_for_plotly() -> None:
    for runs in ([hostile_run()], [hostile_run(), hostile_run()]):
        text = json.dumps(valid(accuracy_latency([r.results for r in runs])))
        assert "<" not in text.replace("<br>", "")
    assert EVIL not in text


@given(POINTS)
def test_no_point_beats_one_of_the_front_in_both(points: list[tuple[int, int]]) -> None:
    front = pareto_front(points)
    assert set(front) <= set(points)
    assert bool(front) == bool(points)
    for x, y in front:
        assert not any(px <= x and py >= y and (px, py) != (x, y) for px, py in points)


@given(POINTS)
def test_each_point_is_on_the_front_or_beaten(points: list[tuple[int, int]]) -> None:
    front = pareto_front(points)
    for x, y in points:
        assert any(fx <= x and fy >= y for fx, fy in front)
