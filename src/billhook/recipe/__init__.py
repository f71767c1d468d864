"""Recipes: TOML files and command-line options as one checked value.

    recipe = recipe.read(Path("r.toml"), [Change(("finetune", "epochs"), 3, "--epochs")])
    recipe.save(recipe, Path("copy.toml"))

A recipe that is wrong raises `RecipeError`, which lists every problem at once, each as "file:line: message".
"""

from __future__ import annotations

from billhook.recipe.input_spec import InputSpec, parse_inputs
from billhook.recipe.read import Change, build, from_target, parse, read
from billhook.recipe.schema import GIVEN, Bounds, Data, Export, Measure, Model, Prune, Recipe, Sparse
from billhook.recipe.searching import Search
from billhook.recipe.training import Finetune, Training
from billhook.recipe.write import save, to_toml

__all__ = [
    "GIVEN",
    "Bounds",
    "Change",
    "Data",
    "Export",
    "Finetune",
    "InputSpec",
    "Measure",
    "Model",
    "Prune",
    "Recipe",
    "Search",
    "Sparse",
    "Training",
    "build",
    "from_target",
    "parse",
    "parse_inputs",
    "read",
    "save",
    "to_toml",
]
