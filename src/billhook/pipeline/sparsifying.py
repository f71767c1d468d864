"""From a recipe to zeros in weights: what `--dry-run` shows and what a run carries out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from billhook.errors import InputError
from billhook.graph import Plan, Scope
from billhook.graph.structure import Structure
from billhook.methods.sparse import (
    MappingSubject,
    Sparsified,
    find_sparse_method,
    is_mapping,
    mapped,
    patterns_of,
    sparse_methods,
    sparsify,
)
from billhook.methods.sparse._given import checked_sparsities
from billhook.pipeline.subject import Subject
from billhook.recipe import Recipe, Sparse
from billhook.sparse.allocation import reachable, require_reachable


def check_sparse(subject: Subject) -> None:
    """Raise now what the stage would raise after hours.

    Raises:
        InputError: if the recipe says how weights leave but not how many, or names an option that does not
            exist or a pattern that does not fit, or wants more zeros than the patterns can make.
        ScopeError: if a pattern of the scope matches nothing.
    """
    wanted = subject.recipe.sparse
    if not wanted.wanted:
        _check_nothing_meant(subject.recipe)
        return
    info = sparse_methods.info(wanted.method)
    if info.needs_data and subject.recipe.data is None:
        raise InputError(
            f"sparse method {wanted.method!r} learns from data: give --data, or a [data] table in the recipe"
        )
    find_sparse_method(wanted.method, wanted.options)
    layers = subject.prunable_graph.weights
    if is_mapping(wanted.pattern):
        _check_mapping(subject, wanted)
        return
    found = patterns_of(layers, wanted.pattern, _scope(wanted))
    views = {
        layer.tensor: layer.view for layer in layers if layer.tensor in found
    }  # channels have not left yet
    if wanted.sparsities is not None:
        checked_sparsities(wanted.sparsities, found, layers)
        return
    if wanted.sparsity is None:
        least, most = reachable(views, found)
        if least < most:
            raise InputError(
                "how many weights shall be zero? Give --sparsity 0.8, or sparsity = 0.8 in the table [sparse]"
            )
        return
    require_reachable(views, found, wanted.sparsity)


def sparsify_network(
    subject: Subject, model: nn.Module, plan: Plan, checkpoints: Path | None, *, bars: bool = False
) -> Sparsified:
    """Return the network without the plan's channels and with zeros in what is left, and a plan for both.

    Args:
        subject: Whose recipe says which weights leave.
        model: What the plan is for, in full size.
        plan: Which channels leave.
        checkpoints: Where a method that trains keeps what it needs to go on.
        bars: Show progress bars while it trains.
    """
    wanted, seed = subject.recipe.sparse, subject.recipe.seed
    training = sparse_trains(wanted.method)
    return sparsify(
        model,
        subject.example_inputs,
        sparsity=wanted.sparsity,
        pattern=wanted.pattern,
        method=wanted.method,
        options=wanted.options,
        allocation=wanted.allocation,
        sparsities=wanted.sparsities,
        scope=_scope(wanted),
        plan=plan,
        data=subject.training() if training else subject.calibration(),
        validation=subject.validation(),
        seed=seed,
        backend=subject.recipe.export.backend,
        threads=subject.recipe.measure.threads,
        training=wanted.training.to_config(seed) if training else None,
        checkpoint_dir=checkpoints if training else None,
        resume=training and checkpoints is not None,
        progress=bars,
    )


def sparse_trains(method: str) -> bool:
    """Return whether a sparse method trains while it decides."""
    return sparse_methods.info(method).trains


def decides_by(recipe: Recipe) -> str:
    """Return the names of the methods of a recipe: of channels, of weights, or both."""
    names = [recipe.prune.method] if recipe.prunes else []
    return " + ".join([*names, *([recipe.sparse.method] if recipe.sparse.wanted else [])])


def weight_rows(structures: Mapping[str, Structure]) -> list[dict[str, Any]]:
    """Return one row for each weight that has a pattern, as plain data."""
    return [
        {
            "tensor": name,
            "shape": list(s.shape),
            "pattern": str(s.pattern),
            "weights": s.mask.numel(),
            "kept": s.nonzeros,
            "numbers": s.values,
            "sparsity": s.sparsity,
        }
        for name, s in structures.items()
    ]


def total(structures: Mapping[str, Structure]) -> dict[str, int]:
    """Return how many tensors and weights have a pattern, and what is left of them."""
    return {
        "tensors": len(structures),
        "weights": sum(s.mask.numel() for s in structures.values()),
        "kept": sum(s.nonzeros for s in structures.values()),
        "numbers": sum(s.values for s in structures.values()),
    }


def _scope(wanted: Sparse) -> Scope:
    return Scope(wanted.include, wanted.exclude)


def _check_mapping(subject: Subject, wanted: Sparse) -> None:
    """Raise what a mapping by rules raises, and what a search needs and lacks; a search itself takes long."""
    assert isinstance(wanted.pattern, str)
    layers = _scope(wanted).select_weights(subject.prunable_graph.weights)
    if not wanted.pattern.startswith("search"):
        what = MappingSubject(
            subject.prunable,
            layers,
            wanted.sparsity,
            example_inputs=subject.example_inputs,
            backend=subject.recipe.export.backend,
            threads=subject.recipe.measure.threads,
        )
        mapped(wanted.pattern, what)
    elif wanted.sparsity is None or subject.recipe.data is None:
        lacks = "--sparsity 0.8" if wanted.sparsity is None else "--data, or a [data] table in the recipe"
        raise InputError(
            f"pattern 'search' looks for the mapping that costs the least accuracy: give {lacks}"
        )


def _check_nothing_meant(recipe: Recipe) -> None:
    wanted, default = recipe.sparse, Sparse()
    names = ["method", "allocation", "options", "training"]
    if recipe.prunes:  # else they may have been meant for channels
        names += ["include", "exclude"]
    said = [n for n in names if _says(wanted, default, n)]
    if said:
        raise InputError(
            f"[sparse] says {said[0]!r}, but not how many weights shall be zero: give --sparsity 0.8, or "
            "sparsity = 0.8 in the table"
        )


def _says(wanted: Sparse, default: Sparse, name: str) -> bool:
    return bool(getattr(wanted, name) != getattr(default, name))
