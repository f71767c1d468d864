"""Make the network, read the data, and find out early what would fail late."""

from __future__ import annotations

from typing import Any

from billhook.errors import InputError, MissingExtraError
from billhook.graph import Scope
from billhook.measure import backends, environment
from billhook.measure.environment import versions
from billhook.pipeline.subject import Subject
from billhook.pipeline.work import Work
from billhook.recipe import Recipe
from billhook.units import format_count


def prepare(work: Work) -> dict[str, Any]:
    """Return where the weights come from and what the original costs; writes `environment.json`."""
    subject = work.subject
    work.directory.write_json("environment.json", environment())
    check(work.recipe, subject)
    cost = subject.graph.costs.cost(None)
    notes = []
    if subject.dataset is None:
        notes.append("no data was given, so accuracy was neither measured nor restored by fine-tuning")
    if not subject.weights_from and work.recipe.train is None:
        notes.append("the original network has random weights; give --weights, or train it with [train]")
    return {
        "weights": subject.weights_from,
        "weights_sha256": None if work.recipe.train else subject.weights_hash(),
        "inputs": subject.graph.inputs,
        "cost": cost.to_dict(),
        "notes": notes,
        "summary": f"{format_count(cost.params)} parameters, {format_count(cost.macs)} MACs",
    }


def check(recipe: Recipe, subject: Subject) -> None:
    """Raise now what a later stage would raise after hours.

    Raises:
        InputError: if there is no budget, a scope pattern matches nothing, or training lacks data.
        MissingExtraError: if the runtime is not installed.
    """
    if recipe.budget is None:
        raise InputError("there is no budget: give --budget latency=0.5, or a [budget] table in the recipe")
    if recipe.train is not None and subject.dataset is None:
        raise InputError("[train] needs data: give --data, or a [data] table in the recipe")
    runtime = backends.get(recipe.export.backend)
    if not versions((runtime.library,)):
        raise MissingExtraError(runtime.library, "onnx", f"the runtime {recipe.export.backend!r}")
    Scope(recipe.prune.include, recipe.prune.exclude).select(subject.graph.groups)


def check_unchanged(work: Work) -> None:
    """Raise if the network of a resumed run is not the one that the run began with.

    Raises:
        InputError: says so, and what to do.
    """
    before = work.outcome("prepare").get("weights_sha256")
    if before is not None and before != work.subject.weights_hash():
        raise InputError(
            f"{work.recipe.model.name} has other weights than when the run began, so the run cannot be "
            "resumed; bring them back, seed what is random in it, or start a new run"
        )
