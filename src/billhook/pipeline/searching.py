"""From a recipe to a search: begun, continued, or only looked at."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from billhook.allocate.budget import Budget
from billhook.errors import InputError, StorageError
from billhook.graph import Scope
from billhook.pipeline.deciding import budget_of
from billhook.pipeline.subject import Subject
from billhook.recipe import Change, Recipe, Search, parse, to_toml
from billhook.search.costs import SearchCosts
from billhook.search.driver import OnTrial, SearchResult, find_searcher, search
from billhook.search.latency import make_latency, needs_latency
from billhook.search.objective import Judge
from billhook.search.problem import SearchProblem
from billhook.search.studies.study import Study

# What a search may be continued with otherwise: how it runs, and for how long, is no part of what it is.
_RUNNING = ("study", "workers", "ray")


@dataclass(frozen=True)
class SearchPreview:
    """What a search would choose from.

    Attributes:
        genes: One row for each decision: "kind", "target", "values".
        costs: Metric → "least" and "most" that candidates cost, and "limit" if the budget has one.
    """

    genes: Sequence[Mapping[str, Any]]
    costs: Mapping[str, Mapping[str, float]]

    @property
    def candidates(self) -> int:
        """How many candidates there are."""
        count = 1
        for gene in self.genes:
            count *= len(gene["values"])
        return count

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "genes": [dict(g) for g in self.genes],
            "candidates": str(self.candidates),  # more than a number of JSON can hold exactly
            "costs": {metric: dict(ends) for metric, ends in self.costs.items()},
        }


def preview_search(subject: Subject) -> SearchPreview:
    """Return what a search would choose from; nothing is written or evaluated.

    Where latency is asked for, a model of it is made, which times layers or candidates.

    Raises:
        BillhookError: what the search would raise before its first trial.
    """
    problem = problem_of(subject)
    wanted = search_of(subject.recipe)
    find_searcher(wanted.method, wanted.options).check(problem)
    latency = make_latency(problem) if needs_latency(problem) else None
    costs = SearchCosts(problem.space, problem.budget, latency)
    costs.require_reachable()
    genes = [{"kind": g.kind, "target": g.target, "values": list(g.values)} for g in problem.space.genes]
    ends = {
        metric: {
            "least": least,
            "most": most,
            **({"limit": costs.limits[metric]} if metric in costs.limits else {}),
        }
        for metric, (least, most) in costs.reachable().items()
    }
    return SearchPreview(genes, ends)


def run_search(subject: Subject, *, on_trial: OnTrial | None = None, bars: bool = False) -> SearchResult:
    """Carry out the search of a recipe, or go on with it if its study exists.

    The study keeps the recipe, so that it is all that is needed to go on, to look at the search, and to
    export a trial.

    Args:
        subject: The network and its data.
        on_trial: Told of every finished trial.
        bars: Show progress bars while a searcher trains.
    Raises:
        BillhookError: see `billhook.search.search`.
    """
    recipe = subject.recipe
    wanted, problem = search_of(recipe), problem_of(subject, bars=bars)
    return search(
        problem,
        wanted.method,
        options=wanted.options,
        trials=wanted.trials,
        study=wanted.study,
        name=wanted.name,
        workers=wanted.workers,
        ray=wanted.ray,
        parallel=wanted.parallel,
        description={
            "model": network_of(subject),
            "network": _short(recipe.model.name),
            "data": recipe.data.name if recipe.data is not None else "",
            "accuracy": _accuracy(problem),
            "recipe": to_toml(_kept(recipe)),
        },
        on_trial=on_trial,
    )


def problem_of(subject: Subject, *, bars: bool = False) -> SearchProblem:
    """Return what a recipe's search is about.

    Raises:
        InputError: if there are no data, or the original would have to be trained first.
        ScopeError: if a pattern of the scope matches nothing.
    """
    recipe = subject.recipe
    wanted = search_of(recipe)
    validation = subject.validation()
    if validation is None:
        raise InputError(
            "a search judges candidates by their accuracy: give --data, or a [data] table in the recipe"
        )
    if subject.trains:
        raise InputError(
            "a search begins with a trained network, and [train] is for billhook compress: train the network "
            "first, and give its weights with --weights"
        )
    scope = Scope(recipe.prune.include, recipe.prune.exclude)
    return SearchProblem(
        subject.prunable,
        subject.example_inputs,
        _budget(subject),
        data=subject.training(),
        validation=validation,
        settings=wanted.to_settings(),
        scope=scope,
        seed=recipe.seed,
        backend=recipe.export.backend,
        threads=recipe.measure.threads,
        round_to="auto" if recipe.prune.round_to is None else recipe.prune.round_to,
        mixing=recipe.prune.mixing,
        progress=bars,
        captured=subject.prunable_graph,
    )


def search_of(recipe: Recipe) -> Search:
    """Return the table [search] of a recipe, or its defaults."""
    return recipe.search or Search()


def recipe_of(study: Study, changes: Sequence[Change] = ()) -> Recipe:
    """Return the recipe that a study was begun with, with `changes` applied.

    Raises:
        StorageError: if the study has none, because it was begun in Python.
    """
    text = study.facts.get("recipe")
    if not isinstance(text, str):
        raise StorageError(
            f"{study} has no recipe, because it was not begun with billhook search: go on with the program "
            "that began it"
        )
    return parse(text, f"{study}: recipe", changes)


def resume_recipe(
    place: str, name: str, *, more: int | None = None, workers: int | None = None, ray: str | None = None
) -> Recipe:
    """Return the recipe with which a search goes on.

    Args:
        place: File or URL of the study.
        name: Of the study there.
        more: Trials beyond those that are finished; None: up to the number it was begun with.
        workers: Processes on this machine.
        ray: Address of a cluster.
    """
    with Study.open(place, name) as study:
        trials = None if more is None else len(study.finished()) + more
        given = {
            "study": place if "://" in place else str(Path(place).absolute()),
            "name": name,
            "trials": trials,
            "workers": workers,
            "ray": ray,
        }
        changes = [Change(("search", k), v, f"--{k}") for k, v in given.items() if v is not None]
        return recipe_of(study, changes)


def network_of(subject: Subject) -> str:
    """Return what a study calls its network: another one, or other weights, are another name."""
    return f"{_short(subject.recipe.model.name)} with weights {subject.weights_hash()[:12]}"


def _accuracy(problem: SearchProblem) -> float:
    """Return the accuracy of the original, judged as candidates are."""
    judge = Judge(problem.judged_on, problem.loss, problem.model)
    return judge(copy.deepcopy(problem.model).eval())[0]


def _short(model: str) -> str:
    """Return the name of a network without the folders of its file."""
    return Path(model).name if ":" in model else model


def _budget(subject: Subject) -> Budget | None:
    return None if subject.recipe.budget is None else budget_of(subject)


def _kept(recipe: Recipe) -> Recipe:
    """Return the recipe as a study keeps it: not where that is (URLs hold passwords), nor who works."""
    defaults = {key: Search.model_fields[key].default for key in _RUNNING}
    return recipe.model_copy(update={"search": search_of(recipe).model_copy(update=defaults)})
