"""Which pattern every layer of a network gets: by name, by alternatives, by rules, by search."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from billhook.errors import BudgetError, InputError
from billhook.graph import Scope
from billhook.graph.patterns import Pattern, options_in, wide
from billhook.graph.structure import impose_, viewed
from billhook.graph.weights import WeightLayer
from billhook.methods.sparse._base import nearest
from billhook.methods.sparse._layer_times import AUTO, WORDS, layer_times
from billhook.options import Above, Configurable, Number, OneOf, Text, configure, option
from billhook.sparse.alternatives import Patterns, fitting_patterns
from billhook.sparse.mapping import Mapping as SchemeMapping
from billhook.sparse.mapping import (
    MappingProblem,
    map_by_rules,
    network_latency,
    search,
)
from billhook.train import evaluate, recalibrate_batchnorm


def patterns_of(
    layers: Sequence[WeightLayer], pattern: Patterns, scope: Scope | None = None
) -> dict[str, Pattern]:
    """Return the pattern of every weight that shall have one; raises what `fitting_patterns` does."""
    for text in pattern.values() if isinstance(pattern, Mapping) else (pattern,):
        if isinstance(text, str) and (alone := [part for part in text.split("|") if is_mapping(part)]):
            raise InputError(f"pattern {alone[0]!r} maps a pattern to each layer: give it alone")
    return fitting_patterns(layers, pattern, scope)


_TIMES = f"what layers take: {', '.join(WORDS)}, or the file of a table"


@dataclass(frozen=True)
class Rules(Configurable):
    """Options of "rules"; see `billhook.sparse.mapping.map_by_rules`.

    Attributes:
        latency: Modelled latency relative to the dense network's; 0: sparsity decides, not latency.
    """

    task: str = option("easy", OneOf("easy", "hard"), "hard: kernel patterns for 3×3 convolutions")
    beta: float = option(0.2, Number(0), "how much slower than pruning columns a pattern may be")
    latency: float = option(0.0, Number(0, 1), "modelled latency relative to dense; 0: sparsity decides")
    times: str = option(AUTO, Text(), _TIMES)


@dataclass(frozen=True)
class Search(Configurable):
    """Options of "search"; see `billhook.sparse.mapping.search`."""

    latency: float = option(0.5, Number(0.01, 1), "modelled latency relative to dense, at most")
    evaluations: int = option(100, Number(1, integer=True), "how many mappings are evaluated")
    weight: float = option(1.0, Above(0), "what it costs to miss the latency by all of it")
    recalibration: int = option(4, Number(0, integer=True), "batches for batch norm before each evaluation")
    times: str = option(AUTO, Text(), _TIMES)


MAPPINGS: Mapping[str, type[Configurable]] = {"rules": Rules, "search": Search}


@dataclass(frozen=True, eq=False)
class MappingSubject:
    """What a mapping is for.

    Attributes:
        model: The network.
        layers: Those in scope.
        sparsity: Fraction of zeros; None if the latency decides it.
        data: Batches for batch-norm statistics.
        validation: Batches that mappings are judged on; None: `data`.
        seed: Of the search.
        example_inputs: One batch; for a backend that is to time the network.
        backend: Runtime the network is meant for.
        threads: Of that runtime.
    """

    model: nn.Module
    layers: Sequence[WeightLayer]
    sparsity: float | None
    data: Any = None
    validation: Any = None
    seed: int = 0
    example_inputs: Any = None
    backend: str = "onnxruntime"
    threads: int = 1


def is_mapping(pattern: Patterns) -> bool:
    """Return whether a text asks for a mapping: "rules", "rules:latency=0.4", "search:evaluations=50"."""
    return isinstance(pattern, str) and pattern.partition(":")[0].strip() in MAPPINGS


def mapped(text: str, subject: MappingSubject) -> SchemeMapping:
    """Return the mapping that a text asks for, with the zeros of every tensor.

    Raises:
        BudgetError: if the modelled latency cannot be met.
        EngineError: if layers are to be timed in the engine and it is not built.
        StorageError: if the file of a table cannot be read.
        InputError: for an unknown option, if sparsity or data are missing, if both sparsity and latency say
            how many zeros there are, and if every layer would stay dense.
    """
    name, options = options_in(text)
    settings = configure(MAPPINGS[name], options, what=f"pattern {name!r}")
    assert isinstance(settings, (Rules, Search))
    table, others = layer_times(
        *(settings.times, subject.model, subject.example_inputs, subject.layers),
        backend=subject.backend,
        threads=subject.threads,
    )
    dense = network_latency(table, subject.layers, {}, {})
    if isinstance(settings, Search):
        problem = MappingProblem(
            subject.layers,
            judge(subject, settings.recalibration),
            latency=_bound(settings.latency, dense, others),
            sparsity=_needed(subject, name),
            table=table,
            weight=settings.weight,
        )
        found = search(problem, evaluations=settings.evaluations, seed=subject.seed).mapping
    elif settings.latency:
        if subject.sparsity is not None:
            raise InputError(
                "'rules' with a latency decides how many zeros there are: leave the sparsity out"
            )
        found = map_by_rules(
            subject.layers,
            latency=_bound(settings.latency, dense, others),
            energies=_energies(subject),
            table=table,
            task=settings.task,
        )
    else:
        found = map_by_rules(
            subject.layers,
            sparsity=_needed(subject, name),
            table=table,
            task=settings.task,
            beta=settings.beta,
        )
    if not found.patterns:
        raise InputError(
            f"the mapping {text!r} leaves every layer dense: by its latency model zeros would not pay. Ask "
            "for more of them or for a lower latency, or name a pattern"
        )
    return found


def _bound(latency: float, dense: float, others: float) -> float:
    """Return the seconds that are left to the layers in scope: what is besides them stays as it is."""
    left = latency * (dense + others) - others
    if left <= 0:
        least = others / (dense + others)
        raise BudgetError(
            f"latency={latency:g} cannot be met: all but the layers in scope takes {least:.0%} of the dense "
            "network's time. Raise it, or bring more layers into scope",
            {"latency": least},
        )
    return left


def judge(subject: MappingSubject, recalibration: int) -> Callable[[SchemeMapping], float]:
    """Return what says how accurate a network is right after one-shot pruning with a mapping.

    Args:
        subject: The network, and what it is judged on.
        recalibration: Batches that batch norms get new statistics of before.
    """
    validation = subject.data if subject.validation is None else subject.validation
    if validation is None:
        raise InputError(
            "pattern 'search' judges mappings by accuracy: give validation= or data=, (inputs, targets)"
        )

    def accuracy(mapping: SchemeMapping) -> float:
        model = copy.deepcopy(subject.model)
        weights = dict(model.named_parameters(remove_duplicate=False))
        structures = {}
        for layer in subject.layers:
            pattern = mapping.choices.get(layer.tensor)
            if pattern is not None:
                share = mapping.sparsities[layer.tensor]
                structures[layer.tensor] = nearest(layer, pattern, weights[layer.tensor], share)
        impose_(weights, structures)
        if recalibration and subject.data is not None:
            recalibrate_batchnorm(model, subject.data, recalibration)
        return evaluate(model, validation).accuracy

    return accuracy


def _energies(subject: MappingSubject) -> dict[str, torch.Tensor]:
    weights = dict(subject.model.named_parameters(remove_duplicate=False))
    return {
        la.tensor: wide(viewed(weights[la.tensor].detach(), transposed=la.transposed)).square()
        for la in subject.layers
    }


def _needed(subject: MappingSubject, name: str) -> float:
    if subject.sparsity is None:
        raise InputError(
            f"pattern {name!r} needs a sparsity, or a latency that decides it: rules:latency=0.5"
        )
    return subject.sparsity
