"""AGMC keeps the budget, is the same for the same seed, goes on after a kill, and hands its policy on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from billhook.allocate.budget import Budget
from billhook.errors import InputError, StorageError
from billhook.search import driver
from billhook.search.costs import SearchCosts
from billhook.search.searchers.agmc import AGMC
from tests.search import Table, problem

BOTH: list[dict[str, Any]] = [{}, {"encoder": "hierarchical", "agent": "ppo", "batch": 4, "epochs": 2}]
NAMES = ["ddpg", "ppo"]


def worth(fractions: Any) -> float:
    weights = np.linspace(1, 3, len(fractions))
    return float(1 - (weights * (1 - fractions) ** 2).sum() / weights.sum())


@pytest.fixture(autouse=True)
def tabled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Judge by a formula, and return what was really evaluated."""
    asked: list[tuple[int, ...]] = []

    class Noted(Table):
        def evaluate(self, genes: Any) -> Any:
            asked.append(tuple(int(g) for g in genes))
            return super().evaluate(genes)

    monkeypatch.setattr(driver, "InheritedWeights", lambda p: Noted(p.space, worth))
    return asked


def found(options: dict[str, Any], name: str = "residual", trials: int = 16, **given: Any) -> Any:
    return driver.search(problem(name, Budget(macs=0.5)), "agmc", trials=trials, options=options, **given)


@pytest.mark.parametrize("options", BOTH, ids=NAMES)
def test_every_candidate_keeps_the_budget_and_the_same_seed_asks_for_the_same(
    options: dict[str, Any],
) -> None:
    first, second = (found(options) for _ in range(2))
    genes = np.array([t.genes for t in first.trials])
    assert len(genes) == 16
    assert SearchCosts(first.problem.space, first.problem.budget).within(genes).all()
    assert [t.genes for t in second.trials] == [t.genes for t in first.trials]


@pytest.mark.parametrize("options", BOTH, ids=NAMES)
def test_a_search_that_goes_on_evaluates_nothing_twice(
    options: dict[str, Any], tmp_path: Path, tabled: list[tuple[int, ...]]
) -> None:
    whole = found(options)
    tabled.clear()
    path = tmp_path / "study.db"
    with pytest.raises(KeyboardInterrupt):
        found(options, study=path, on_trial=_killed_after(6))
    resumed = found(options, study=path)
    assert [t.genes for t in resumed.trials] == [t.genes for t in whole.trials]
    assert len(tabled) == len(set(tabled))


def _killed_after(trials: int) -> Any:
    def told(trial: Any, progress: Any) -> None:
        if progress.done >= trials:
            raise KeyboardInterrupt

    return told


@pytest.mark.parametrize("options", BOTH, ids=NAMES)
def test_a_policy_of_one_network_begins_on_another(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    found(options, study=tmp_path / "one.db")
    (policy,) = tmp_path.rglob("policy.safetensors")
    frozen = {**options, "pretrained": str(policy), "freeze_encoder": True}
    found(frozen, "plain", trials=12, study=tmp_path / "other" / "two.db")
    (after,) = (tmp_path / "other").rglob("policy.safetensors")
    before, learnt = load_file(policy), load_file(after)
    same = {name for name, tensor in before.items() if torch.equal(tensor, learnt[name])}
    assert {name for name in before if ".encoder." in name} <= same  # the first search had trained it
    assert same != set(before)


def test_a_policy_of_the_other_agent_is_refused_before_anything_is_evaluated(
    tmp_path: Path, tabled: list[tuple[int, ...]]
) -> None:
    found({}, study=tmp_path / "one.db")
    (policy,) = tmp_path.rglob("policy.safetensors")
    tabled.clear()
    with pytest.raises(StorageError, match="encoder='plain'"):
        found({**BOTH[1], "pretrained": str(policy)})
    assert not tabled


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="needs a budget"):
        AGMC().check(problem("residual"))
    with pytest.raises(InputError, match="pretrained encoder"):
        AGMC(freeze_encoder=True).check(problem("residual", Budget(macs=0.5)))
