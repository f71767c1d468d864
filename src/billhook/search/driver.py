"""`search`: a study, its searcher and its workers, from the network to the winner; and how one goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from billhook import __version__
from billhook.errors import InputError, NameNotFoundError
from billhook.graph import Plan
from billhook.options import configure
from billhook.search import searchers
from billhook.search.costs import SearchCosts
from billhook.search.latencies.model import CandidateLatency
from billhook.search.latency import known_latency, make_latency, needs_latency
from billhook.search.objective import InheritedWeights, Objective
from billhook.search.problem import SearchProblem
from billhook.search.requirements import require
from billhook.search.searcher import Searcher
from billhook.search.session import Session, StopSearch
from billhook.search.studies.study import Study
from billhook.search.studies.trial import Trial, comparable, front, ranked
from billhook.search.winner import own_network, repaired
from billhook.search.workers import open_workers

DEFAULT_TRIALS = 200
OnTrial = Callable[[Trial, "Progress"], None]


@dataclass(frozen=True)
class Progress:
    """How far a search is.

    Attributes:
        done: Trials that are finished.
        trials: Trials in all.
        best: The best so far.
    """

    done: int
    trials: int
    best: Trial | None


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search has found.

    Attributes:
        problem: What was to be made smaller.
        costs: Of candidates.
        trials: All of them, in order.
        best: The most accurate within the budget; None if no trial was.
        judge: Returns what judged the last trials, if it has more than the problem's network; see
            `Searcher.judge`.
    """

    problem: SearchProblem
    costs: SearchCosts
    trials: tuple[Trial, ...]
    best: Trial | None
    judge: Callable[[], Objective | None] = lambda: None

    @property
    def front(self) -> list[Trial]:
        """The trials that no other beats in both accuracy and cost, the cheapest first; see `comparable`."""
        return front(comparable(self.trials), self.problem.metric)

    @property
    def ranked(self) -> list[Trial]:
        """The trials within the budget that can be compared, the most accurate first; each candidate once."""
        return ranked(comparable(self.trials), self.costs.limits)

    def plan(self, trial: Trial | int | None = None) -> Plan:
        """Return the plan of a trial, by default the best one.

        Raises:
            InputError: if there is no such trial.
        """
        chosen = self._chosen(trial)
        return self.problem.space.plan(
            np.array(chosen.genes, dtype=np.int64),
            self.problem.model,
            method="search",
            trial=chosen.number,
            accuracy=chosen.accuracy,
            costs=dict(chosen.costs),
        )

    def network(self, trial: Trial | int | None = None) -> nn.Module:
        """Return the smaller network of a trial, by default the best one, as it was when judged.

        Where a searcher has judged with weights that a generation trained together (JCW), they are not kept:
        it then has the original's, repaired.
        """
        chosen = self._chosen(trial)
        plan = self.plan(chosen)
        judge = None if chosen.key == self.problem.key else self.judge()
        if judge is not None and judge.key == chosen.key:
            tensors = judge.tensors(np.array(chosen.genes, dtype=np.int64))
            if tensors is not None:
                return own_network(self.problem, plan, tensors)
        return repaired(self.problem, plan)

    def _chosen(self, trial: Trial | int | None) -> Trial:
        chosen = self.best if trial is None else trial
        if isinstance(chosen, int):
            chosen = next((t for t in self.trials if t.number == chosen), None)
        if chosen is None:
            raise InputError(
                f"there is no such trial among the {len(self.trials)} of this search"
                + ("" if trial is not None else ": none keeps the budget")
            )
        return chosen


def find_searcher(name: str, options: Mapping[str, Any] | None = None) -> Searcher:
    """Return the searcher called `name`; raises `NameNotFoundError` and, for its options, `InputError`."""
    if name not in searchers.names():
        raise NameNotFoundError("searcher", name, searchers.names())
    return configure(searchers.get(name), options or {}, what=f"searcher {name!r}")


def search(
    problem: SearchProblem,
    method: str = "amc",
    *,
    options: Mapping[str, Any] | None = None,
    trials: int = DEFAULT_TRIALS,
    study: str | Path | None = None,
    name: str = "search",
    workers: int = 1,
    ray: str | None = None,
    parallel: int | None = None,
    latency: CandidateLatency | None = None,
    description: Mapping[str, Any] | None = None,
    on_trial: OnTrial | None = None,
) -> SearchResult:
    """Return what a search has found; it goes on where it stopped if the study exists.

    Every finished trial is kept in the study at once: a search that is killed loses those that were running,
    and nothing is evaluated twice when it is called again with the same arguments.

    Args:
        problem: What is to be made smaller, what candidates are and how one is judged.
        method: Name of a searcher.
        options: Of the searcher.
        trials: How many candidates are evaluated in all.
        study: A file (SQLite), or the URL of a data base; None: in memory, lost in the end.
        name: Of the study there.
        workers: Processes on this machine.
        ray: Address of a Ray cluster ("auto", "local", "HOST:PORT") whose machines evaluate instead.
        parallel: How many candidates are evaluated side by side; part of what a search is, because a searcher
            that learns from each batch asks for others. None: as the study has it, or as many as `workers`.
        latency: A latency model; None: that of the study, or a new one, if latency is asked for at all.
        description: What else to keep with the study.
        on_trial: Told of every finished trial.
    Raises:
        BudgetError: before the first trial, if no candidate meets the budget; names the range.
        InputError: for unknown names and options, missing data, and evaluations that give no number.
        StorageError: if the study belongs to another network, space or search, or cannot be used.
        MissingExtraError: if a library is missing.
    """
    if trials < 1:
        raise InputError(f"trials={trials} must be at least 1")
    searcher = find_searcher(method, options)
    require(*searcher.libraries, what=f"the searcher {method!r}")
    searcher.check(problem)
    if latency is None and needs_latency(problem):
        latency = _latency(problem, study, name)
    costs = SearchCosts(problem.space, problem.budget, latency)
    costs.require_reachable()
    facts = {
        "version": __version__,
        "method": method,
        "options": dict(options or {}),
        "objectives": list(searcher.objectives),
        "metric": problem.metric,
        "seed": problem.seed,
        "space": problem.space.signature,
        "genes": [{"name": g.name, "values": list(g.values)} for g in problem.space.genes],
        "key": problem.key,
        "budget": None if problem.budget is None else problem.budget.to_dict(),
        "original": costs.original,
        "limits": costs.limits,
        "latency": None if latency is None else latency.to_dict(),
        "parallel": parallel or max(1, workers),
        "trials": trials,
        **(description or {}),
    }
    with Study.of(study, name, facts) as kept, open_workers(workers, ray) as pool, ExitStack() as stack:
        if latency is not None:
            there = kept.facts.get("latency")
            if there not in (None, facts["latency"]):  # another machine began it at the same moment
                latency = known_latency(problem, there)
                costs = SearchCosts(problem.space, problem.budget, latency)
            stack.callback(latency.close)
            latency.keep_in(kept.folder)
        folder = kept.folder
        session = Session(
            problem,
            costs,
            lambda: InheritedWeights(problem),
            kept,
            pool,
            trials=trials,
            planned=int(kept.facts["trials"]),
            parallel=int(kept.facts["parallel"]),
            folder=folder,
        )
        if on_trial is not None:
            told = on_trial
            session.told = lambda t: told(t, Progress(len(session.done), trials, session.best()))
        with suppress(StopSearch):
            searcher.run(session)
    return SearchResult(
        problem,
        costs,
        tuple(session.done),
        session.best(),
        lambda: session.judge or searcher.judge(problem, folder),
    )


def _latency(problem: SearchProblem, place: str | Path | None, name: str) -> CandidateLatency:
    """Return the latency model that the study has kept, so that a search goes on with the same times."""
    if problem.settings.latency == "measured" and problem.budget and "latency" in problem.budget.bounds:
        raise InputError(
            "latency='measured' times every candidate for seconds, and a budget on latency asks for "
            "thousands: use 'fitted' or 'table', or leave the budget out and weigh latency with "
            "metric='latency'"
        )
    there = None if place is None else Study.find(place, name)
    if there is not None:
        with there:
            kept = there.facts.get("latency")
        if kept is not None:
            return known_latency(problem, kept)
    return make_latency(problem)
