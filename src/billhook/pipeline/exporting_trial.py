"""From a trial of a search to a run that carries it out: plan, training, zeros, export, measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from billhook.errors import InputError, StorageError
from billhook.graph import Plan
from billhook.pipeline.searching import network_of, problem_of, recipe_of, search_of
from billhook.pipeline.subject import Subject
from billhook.recipe import GIVEN, Change, Recipe, Sparse, Training
from billhook.search.driver import find_searcher
from billhook.search.studies.study import Study
from billhook.search.studies.trial import Trial
from billhook.search.winner import with_tensors

JUDGED = "judged"
STARTS = (JUDGED, "kept", "reconstructed", "fresh")
# How candidates were judged → the weights that a run of one starts with, unless somebody says otherwise.
_STARTS = {
    "both": "reconstructed",
    "reconstruct": "reconstructed",
    "recalibrate": "kept",
    "none": "kept",
}


def plan_of(study: Study, trial: Trial, subject: Subject) -> Plan:
    """Return the plan of a trial.

    Args:
        study: Where the trial is.
        trial: One of its trials.
        subject: The network that the study is about.
    Raises:
        StorageError: if the network is another one now, or its candidates are.
    """
    if study.facts.get("model") != network_of(subject):
        raise StorageError(
            f"{subject.recipe.model.name} has other weights than when the search began ({study}): bring them "
            "back, or begin another search"
        )
    problem = problem_of(subject)
    if problem.space.signature != study.facts["space"]:
        raise StorageError(
            f"{study} is about another network or other candidates than {subject.recipe.model.name} has now; "
            "bring the network back as it was when the search began"
        )
    return problem.space.plan(
        np.array(trial.genes, dtype=np.int64),
        problem.model,
        method="search",
        searcher=study.facts["method"],
        trial=trial.number,
        accuracy=trial.accuracy,
        costs=dict(trial.costs),
    )


def network_of_trial(study: Study, trial: Trial, subject: Subject) -> nn.Module | None:
    """Return the network in full size with the weights that a searcher has made for a trial.

    None if candidates had the network's own weights, or if those they had are not kept (JCW's).

    Args:
        study: Where the trial is.
        trial: One of its trials.
        subject: The network that the study is about.
    Raises:
        StorageError: if what made the weights is not there any more.
    """
    problem = problem_of(subject)
    if trial.key == problem.key:
        return None
    judge = find_searcher(study.facts["method"], study.facts["options"]).judge(problem, study.folder)
    if judge is None or judge.key != trial.key:
        return None
    tensors = judge.tensors(np.array(trial.genes, dtype=np.int64))
    return None if tensors is None else with_tensors(problem.model, tensors)


def recipe_of_trial(
    study: Study,
    trial: Trial,
    plan_file: str,
    *,
    start: str = JUDGED,
    tensors_file: str | None = None,
    changes: Sequence[Change] = (),
) -> Recipe:
    """Return the recipe of a run that carries out a trial.

    It is that of the search, with its plan in the place of a method. Where weights are sparse, the network
    without its channels is trained as long as it will be fine-tuned, then ADMM brings the weights to as many
    zeros as the trial has, as JCW trains its winners.

    Args:
        study: Where the trial is.
        trial: One of its trials.
        plan_file: Where its plan was written.
        start: "kept", "reconstructed" or "fresh": weights that training starts with; "judged": those that
            the candidate was judged with.
        tensors_file: Where those of `network_of_trial` were written, if there are any.
        changes: What the user wants otherwise.
    """
    searched = search_of(recipe_of(study))
    if start not in STARTS:
        raise InputError(f"a trial starts with the weights {', '.join(STARTS)}; got {start!r}")
    options = {"plan": plan_file, "weights": start}
    if start == JUDGED and tensors_file is not None:
        options |= {"weights": "file", "tensors": tensors_file}
    elif start == JUDGED:
        options["weights"] = _STARTS[searched.repair]
    plan = Plan.load(plan_file)
    given: dict[tuple[str, ...], Any] = {
        ("name",): f"{study.facts['method']}-trial-{trial.number}",
        ("prune", "method"): GIVEN,
        ("prune", "options"): options,
        ("prune", "allocator"): None,
        ("prune", "calibration"): searched.calibration,
    }
    said = {change.path for change in changes}
    wanted = [*(Change(path, value, "export") for path, value in given.items()), *changes]
    recipe = recipe_of(study, wanted)
    sparse = bool(plan.patterns) and not recipe.sparse.wanted
    more: dict[tuple[str, ...], Any] = {}
    if sparse and recipe.sparse.method == Sparse.model_fields["method"].default:
        more["sparse", "method"] = "admm"
    if sparse and not recipe.settle.wanted:
        more["settle", "epochs"] = recipe.finetune.epochs
    if start == "fresh":  # weights that know nothing are trained as a network is from the beginning
        more["settle" if sparse else "finetune", "lr"] = Training.model_fields["lr"].default
    unsaid = [Change(path, value, "export") for path, value in more.items() if path not in said]
    return recipe_of(study, [*wanted, *unsaid]).model_copy(update={"search": None})
