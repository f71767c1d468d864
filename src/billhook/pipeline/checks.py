"""Find out early what would fail late."""

from __future__ import annotations

from billhook.criteria import criteria
from billhook.errors import InputError, MissingExtraError
from billhook.graph import Scope
from billhook.measure import backends
from billhook.measure.environment import versions
from billhook.methods import Method, Problem, methods
from billhook.methods._prune import find_method
from billhook.pipeline.deciding import budget_of, trains
from billhook.pipeline.sparsifying import check_sparse, sparse_trains
from billhook.pipeline.subject import Subject
from billhook.pipeline.work import Work
from billhook.recipe import Recipe

TRAINER = "lightning-fabric"


def check(subject: Subject) -> None:
    """Raise now what a stage would raise after hours.

    Raises:
        InputError: if there is neither a budget nor a sparsity, an option does not exist, a pattern does not
            fit a layer, a scope matches nothing, or data are missing.
        CaptureError: if the network cannot be captured.
        ExportError: if the runtime has no int8, and the recipe wants it.
        MissingExtraError, EngineError: if the runtime or the training library is not installed.
    """
    recipe = subject.recipe
    if not recipe.prunes and not recipe.sparse.wanted:
        check_sparse(subject)
        raise InputError(
            "there is no budget and no sparsity: give --budget latency=0.5 or --sparsity 0.8, or a [budget] "
            "or a [sparse] table in the recipe"
        )
    method = _check_method(recipe) if recipe.prunes else None
    wants_training = {"train": recipe.train is not None, "settle": recipe.settle.wanted}
    for table, wanted in wants_training.items():
        if wanted and recipe.data is None:
            raise InputError(f"[{table}] needs data: give --data, or a [data] table in the recipe")
    backends.get(recipe.export.backend).require()
    if recipe.export.precision == "int8":
        backends.get(recipe.export.backend).require_int8()
        subject.export_calibration()
    finetunes = recipe.data is not None and (recipe.finetune.wanted or recipe.settle.wanted)
    if (subject.trains or finetunes or _decides_in_training(recipe)) and not versions((TRAINER,)):
        raise MissingExtraError(TRAINER, "train", "training")
    check_sparse(subject)
    if method is None:
        return
    scope = Scope(recipe.prune.include, recipe.prune.exclude)
    scope.select(subject.prunable_graph.groups)
    method.check(
        Problem(
            subject.prunable,
            subject.example_inputs,
            budget_of(subject),
            scope=scope,
            mixing=recipe.prune.mixing,
            captured=subject.prunable_graph,
        )
    )


def _decides_in_training(recipe: Recipe) -> bool:
    channels = recipe.prunes and trains(recipe.prune.method)
    return channels or (recipe.sparse.wanted and sparse_trains(recipe.sparse.method))


def _check_method(recipe: Recipe) -> Method:
    name = recipe.prune.method
    own = name in methods.names()
    info = methods.info(name) if own else criteria.info(name)
    if info.needs_data and recipe.data is None:
        raise InputError(f"method {name!r} learns from data: give --data, or a [data] table in the recipe")
    return find_method(name, recipe.prune.options, recipe.prune.allocator)


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
