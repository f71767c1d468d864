"""Recipes whose decision is a plan file: what it says about single weights, and the run's own copy of it."""

from __future__ import annotations

import shutil
from pathlib import Path

from billhook.graph import Plan
from billhook.graph.storage import read_tensors
from billhook.pipeline.run_directory import RunDirectory
from billhook.recipe import GIVEN, Recipe

COPY, TENSORS = "given.json", "given.safetensors"


def with_patterns(recipe: Recipe) -> Recipe:
    """Return the recipe, which has its patterns of weights from the plan if it says nothing about weights.

    Which weights leave is decided anew, by the recipe's sparse method: as many of each tensor, in the same
    patterns.

    Raises:
        PlanError: if the plan cannot be read.
    """
    file = plan_file(recipe)
    if file is None or recipe.sparse.wanted:
        return recipe
    structures = Plan.load(file).patterns
    if not structures:
        return recipe
    said = {
        "pattern": {name: str(s.pattern) for name, s in structures.items()},
        "sparsities": {name: s.sparsity for name, s in structures.items()},
    }
    return recipe.model_copy(update={"sparse": recipe.sparse.model_copy(update=said)})


def with_own_copy(recipe: Recipe, directory: RunDirectory) -> Recipe:
    """Return the recipe with the files that it names copied into the run directory, so that it can resume."""
    file = plan_file(recipe)
    if file is None:
        return recipe
    directory.write_text(COPY, Plan.load(file).to_json() + "\n")
    options = {**recipe.prune.options, "plan": str(directory.file(COPY).resolve())}
    tensors = options.get("tensors")
    if isinstance(tensors, str):
        read_tensors(tensors)  # what is no file of tensors is not copied
        shutil.copyfile(tensors, directory.file(TENSORS))
        options["tensors"] = str(directory.file(TENSORS).resolve())
    return recipe.model_copy(update={"prune": recipe.prune.model_copy(update={"options": options})})


def plan_file(recipe: Recipe) -> Path | None:
    """Return the file of the plan that the recipe wants carried out; None if a method decides."""
    name = recipe.prune.options.get("plan")
    return Path(name) if recipe.prune.method == GIVEN and isinstance(name, str) else None
