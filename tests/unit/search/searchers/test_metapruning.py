"""MetaPruning as a whole: trains once, searches within the budget, resumes, refuses what it cannot do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from billhook.allocate.budget import Budget
from billhook.errors import InputError, StorageError
from billhook.search.driver import search
from billhook.search.hypernet import training
from billhook.search.searchers.metapruning import MetaPruning
from billhook.train import StepContext, evaluate
from tests.networks import build
from tests.search import problem, problem_of

SHORT: dict[str, Any] = {"steps": 6, "population": 4}


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes every training."""
    made: list[str] = []
    fit = training.fit

    def noted(network: Any, *args: Any, **kwargs: Any) -> Any:
        made.append(type(network).__name__)
        return fit(network, *args, **kwargs)

    monkeypatch.setattr(training, "fit", noted)
    return made


@pytest.mark.parametrize("start", ["scratch", "trained"])
def test_a_search_trains_once_and_keeps_the_budget(fits: list[str], start: str) -> None:
    searched = problem("residual", Budget(macs=0.5))
    found = search(searched, "metapruning", options={**SHORT, "start": start}, trials=10)
    assert fits == ["PruningNet"]
    assert len({t.genes for t in found.trials}) == 10
    limit = 0.5 * searched.graph.costs.cost(None).macs
    assert all(t.costs["macs"] <= limit for t in found.trials)
    assert all(t.key.startswith("generated ") for t in found.trials)
    assert found.plan().removed


@pytest.mark.parametrize("name", ["depthwise_squeeze", "grouped", "attention", "flatten"])
def test_it_searches_any_network(name: str) -> None:
    model, inputs = build(name)
    searched = problem_of(model, inputs, Budget(macs=0.7))
    assert len(search(searched, "metapruning", options=SHORT, trials=5).trials) == 5


def test_a_search_goes_on_without_training_again(tmp_path: Path, fits: list[str]) -> None:
    searched, study = problem("residual", Budget(macs=0.5)), tmp_path / "s.db"
    whole = search(searched, "metapruning", options=SHORT, trials=12)
    search(searched, "metapruning", options=SHORT, trials=5, study=study)
    assert len(fits) == 2
    found = search(searched, "metapruning", options=SHORT, trials=12, study=study)
    assert len(fits) == 2
    assert [(t.genes, t.accuracy, t.loss) for t in found.trials] == [
        (t.genes, t.accuracy, t.loss) for t in whole.trials
    ]


@pytest.mark.parametrize("again", [False, True])
def test_the_network_of_the_winner_is_worth_what_was_judged(tmp_path: Path, again: bool) -> None:
    searched, study = problem("residual", Budget(macs=0.5)), tmp_path / "s.db" if again else None
    found = search(searched, "metapruning", options=SHORT, trials=6, study=study)
    if again:
        found = search(searched, "metapruning", options=SHORT, trials=6, study=study)
    assert found.best is not None
    before = {name: t.clone() for name, t in searched.model.state_dict().items()}
    judged = evaluate(found.network(), searched.validation)
    assert judged.loss == pytest.approx(found.best.loss, rel=0.05)
    assert all(torch.equal(t, before[name]) for name, t in searched.model.state_dict().items())


def test_a_network_that_generated_weights_and_is_lost_is_named(tmp_path: Path) -> None:
    searched, study = problem("residual", Budget(macs=0.5)), tmp_path / "s.db"
    search(searched, "metapruning", options=SHORT, trials=6, study=study)
    shutil.rmtree(tmp_path / "s.db.d")
    found = search(searched, "metapruning", options=SHORT, trials=6, study=study)
    with pytest.raises(StorageError, match=r"pruning-net\.safetensors is missing"):
        found.network()


def test_a_search_that_was_killed_while_it_trained_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched, study = problem("residual", Budget(macs=0.5)), tmp_path / "s.db"
    whole = search(searched, "metapruning", options=SHORT, trials=6)
    before_step = training.DrawWidths.before_step

    def killed(self: Any, context: StepContext) -> None:
        if context.step == 4:
            raise KeyboardInterrupt
        before_step(self, context)

    with monkeypatch.context() as patch:
        patch.setattr(training.DrawWidths, "before_step", killed)
        with pytest.raises(KeyboardInterrupt):
            search(searched, "metapruning", options=SHORT, trials=6, study=study)
    found = search(searched, "metapruning", options=SHORT, trials=6, study=study)
    assert [(t.genes, t.loss) for t in found.trials] == [(t.genes, t.loss) for t in whole.trials]


def test_what_changes_the_weights_changes_the_key() -> None:
    searched = problem("residual", Budget(macs=0.5))
    keys = {
        MetaPruning(**given).key(searched)
        for given in (
            {},
            {"steps": 3},
            {"lr": 0.2},
            {"start": "scratch"},
            {"hidden": 8},
            {"limit": 9},
            {"widths": "all"},
        )
    }
    assert len(keys) == 7
    assert MetaPruning(population=8, probability=0.5).key(searched) == MetaPruning().key(searched)


@pytest.mark.parametrize(("widths", "within"), [("budget", True), ("all", False)])
def test_it_is_trained_in_widths_that_keep_the_budget_or_in_all(
    widths: str, within: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched, rows = problem("residual", Budget(macs=0.5)), []
    before_step = training.DrawWidths.before_step

    def noted(self: Any, context: StepContext) -> None:
        before_step(self, context)
        rows.append(context.model.row)

    monkeypatch.setattr(training.DrawWidths, "before_step", noted)
    found = search(searched, "metapruning", options={**SHORT, "widths": widths, "steps": 20}, trials=4)
    assert len({tuple(row) for row in rows}) >= 5
    assert bool(found.costs.within(np.stack(rows)).all()) is within


def test_what_it_cannot_do_is_refused_before_anything_is_trained(fits: list[str]) -> None:
    half = Budget(macs=0.5)
    for given, message in (
        ({"budget": half, "pattern": "4x1|dense"}, "searches widths only"),
        ({"budget": None}, "give one, e.g. macs=0.5"),
        ({"budget": half, "data": None}, "give data="),
    ):
        with pytest.raises(InputError, match=message):
            search(problem("plain", **given), "metapruning", trials=2)
    frozen = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))
    with pytest.raises(InputError, match="nothing to search"):
        search(problem_of(frozen, torch.zeros(1, 4), half), "metapruning", trials=2)
    assert not fits
