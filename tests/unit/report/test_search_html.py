"""Searches as records, plots, tables and a page, from made-up trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from billhook.errors import InputError
from billhook.report import search_figures
from billhook.report.search_html import chosen_trial, search_html, write_search_html
from billhook.report.search_record import GeneRecord, SearchRecord
from billhook.search.studies.trial import Trial
from tests.unit.report.test_figures import valid

GENES = (GeneRecord("channels", "stem", (4.0, 8.0, 16.0)), GeneRecord("density", "head.weight", (0.5, 1.0)))


def trial(number: int, accuracy: float, macs: float, genes: tuple[int, int] = (0, 0), key: str = "") -> Trial:
    return Trial(number, genes, accuracy, 1 - accuracy, {"macs": macs}, 0.1, key)


TRIALS = (
    trial(0, 0.5, 40.0),
    trial(1, 0.8, 60.0, (1, 1)),
    trial(2, 0.7, 45.0, (1, 0)),
    trial(3, 0.6, 50.0, (0, 1)),
)
RECORD = SearchRecord("s.db", "search", "tpe", "macs", GENES, {"macs": 100.0}, {"macs": 55.0}, TRIALS, 10)


def test_the_best_keeps_the_limit_and_the_front_is_what_nothing_beats() -> None:
    assert RECORD.best == TRIALS[2]
    assert [t.number for t in RECORD.front] == [0, 2, 1]
    assert RECORD.best_so_far() == [0.5, 0.5, 0.7, 0.7]
    assert RECORD.kept(TRIALS[1]) == (0.5, 1.0)
    assert replace(RECORD, limits={}).best is None
    with pytest.raises(InputError, match="no finished trial 9; there are 4, from 0 on"):
        RECORD.trial(9)


def test_the_hypervolume_is_the_area_that_trials_dominate() -> None:
    assert RECORD.volumes() == pytest.approx([0.3, 0.42, 0.45, 0.45], abs=1e-6)


def test_without_a_budget_the_knee_of_the_front_is_chosen() -> None:
    assert chosen_trial(replace(RECORD, limits={})) == TRIALS[2]


def test_plots_show_trials_front_limit_and_the_chosen_point() -> None:
    figure = valid(search_figures.front([RECORD], RECORD.best))
    points, line, star = figure["data"]
    assert points["x"] == pytest.approx([40, 60, 45, 50])
    assert line["y"] == pytest.approx([50, 70, 80])
    assert (star["x"], star["y"]) == (pytest.approx([45]), pytest.approx([70]))
    assert "trial 2" in star["hovertext"][0]
    assert "stem: 8 of 16" in star["hovertext"][0]
    assert figure["layout"]["shapes"][0]["x0"] == pytest.approx(55)
    best, volume = valid(search_figures.progress([RECORD]))["data"]
    assert best["y"] == pytest.approx([50, 50, 70, 70])
    assert volume["yaxis"] == "y2"


def test_the_policy_shows_what_stays_of_every_group_and_tensor() -> None:
    channels = valid(search_figures.policy(RECORD, "channels", RECORD.best))
    assert channels["data"][0]["x"] == [50.0]
    assert channels["data"][0]["text"] == ["8 of 16"]
    assert [t["name"] for t in channels["data"][1:]] == ["trial 3", "trial 0"]
    assert valid(search_figures.policy(RECORD, "density", RECORD.best))["data"][0]["text"] == ["50 %"]


def test_a_page_has_the_export_command_of_every_point_and_escapes_names(tmp_path: Path) -> None:
    evil = replace(RECORD, model="<script>alert(1)</script>", place="a b.db")
    page = write_search_html([evil, replace(RECORD, method="random")], tmp_path / "p.html").read_text()
    assert "billhook search export &#39;a b.db&#39; --trial 2" in page
    assert "<script>alert(1)</script>" not in page


def test_searches_by_different_costs_are_not_compared() -> None:
    other = replace(RECORD, metric="latency", place="t.db")
    with pytest.raises(InputError, match=r"s\.db by macs; t\.db by latency"):
        search_html([RECORD, other])


def test_a_search_without_trials_has_a_page() -> None:
    assert "No trial is finished yet" in search_html([replace(RECORD, trials=())])
