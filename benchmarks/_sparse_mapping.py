"""Mapping compared: rules against single schemes at one modelled latency, search against random mappings.

Layers are timed in billhook's engine.
"""

from __future__ import annotations

from collections.abc import Mapping as Table
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._sparse_run import ENDS, NETWORKS, Task
from benchmarks._training import Protocol, batches, dataset, example, trained
from billhook import BudgetError, Scope
from billhook.compile.layer_latency import TimedLayers
from billhook.graph import capture
from billhook.graph.patterns import Pattern, parse_pattern
from billhook.graph.structure import viewed
from billhook.graph.weights import WeightLayer
from billhook.methods.sparse._patterns import MappingSubject, judge
from billhook.sparse.allocation import allocate, reachable
from billhook.sparse.mapping import (
    LatencyModel,
    MappingProblem,
    environment,
    map_by_rules,
    network_latency,
    random_search,
    search,
    share_out,
)

SINGLE = ("unstructured", "4x1", "8x1", "8x4", "kernel_pattern", "column", "filter")
# Of the dense network's modelled latency. A ResNet-20 of small images cannot go far below half: layers count.
BOUNDS = {"resnet-20": (0.65, 0.55), "small-vgg": (0.4, 0.25)}
SHARED = "4x1"  # the pattern that the sharing out of the mapping is also tried with alone
MOST = 0.98  # zeros of a single scheme, at most
SPARSITY, EVALUATIONS, IMAGES, RECALIBRATION = 0.7, 100, 2000, 4


def mapping_tasks(seed: int, protocol: Protocol, folder: Path) -> list[Task]:
    """Return the runs that compare rules with single schemes: same modelled latency, same sharing out."""
    tasks = []
    for network in ("resnet-20", "small-vgg"):
        model = trained(network, NETWORKS[network], seed, protocol, folder)
        layers, energies = _layers(network, model)
        table = TimedLayers(layers)  # kept on disk: the next call asks for the same runs
        whole = network_latency(table, layers, {}, {})
        for bound in BOUNDS[network]:
            for name in SINGLE:
                patterns = {la.tensor: p for la in layers if (p := _fitting(name, la)) is not None}
                with suppress(BudgetError):  # then the pattern has no row at this bound
                    shares = _lamp(layers, energies, patterns, bound * whole, table)
                    tasks.append(_task(network, bound, name, patterns, shares, seed))
            choices = {la.tensor: _fitting(SHARED, la) for la in layers}
            shares = share_out(layers, energies, choices, bound * whole, table)
            patterns = {t: p for t, p in choices.items() if p is not None and t in shares}
            tasks.append(_task(network, bound, f"{SHARED}, shared out", patterns, shares, seed))
            mapped = map_by_rules(layers, latency=bound * whole, energies=energies, table=table)
            tasks.append(_task(network, bound, "rules", mapped.patterns, mapped.sparsities, seed))
    return tasks


def _lamp(
    layers: Sequence[WeightLayer],
    energies: Table[str, torch.Tensor],
    patterns: Table[str, Pattern],
    bound: float,
    table: LatencyModel,
) -> dict[str, float]:
    """Return the zeros of every tensor, shared out by LAMP, at the sparsity that meets a modelled latency."""
    own = {t: energies[t] for t in patterns}
    low, high = reachable({t: tuple(e.shape) for t, e in own.items()}, patterns)
    high = min(high, MOST)
    for _ in range(20):
        middle = (low + high) / 2
        shares = allocate(own, patterns, middle, "lamp")
        fits = network_latency(table, layers, patterns, shares) <= bound
        low, high = (low, middle) if fits else (middle, high)
    shares = allocate(own, patterns, high, "lamp")
    if network_latency(table, layers, patterns, shares) > bound:
        raise BudgetError("this pattern does not meet the bound")
    return shares


def _task(
    network: str,
    bound: float,
    row: str,
    patterns: Table[str, Pattern],
    shares: Table[str, float],
    seed: int,
) -> Task:
    return Task(
        network,
        part=f"mapping {bound}",
        row=row,
        pattern={t: str(p) for t, p in patterns.items()},
        sparsities={t: float(s) for t, s in shares.items()},
        method="magnitude",
        seed=seed,
    )


def _fitting(name: str, layer: WeightLayer) -> Pattern | None:
    pattern = parse_pattern(name)
    return pattern if pattern.refusal(layer.view, layer.groups) is None else None


def _layers(network: str, model: nn.Module) -> tuple[Sequence[WeightLayer], dict[str, torch.Tensor]]:
    """Return the layers in scope, and what their weights are worth."""
    graph = capture(model, example())
    layers = Scope(exclude=ENDS[network]).select_weights(graph.weights)
    weights = dict(model.named_parameters())
    energies = {
        la.tensor: viewed(weights[la.tensor].detach(), transposed=la.transposed).square() for la in layers
    }
    return layers, energies


def search_rows(network: str, seed: int, protocol: Protocol, folder: Path) -> dict[str, Any]:
    """Return the best reward of a search and of random mappings, with the same number of evaluations.

    A mapping is judged by its accuracy on images of the validation part, after one-shot pruning and new
    batch-norm statistics, without training.
    """
    torch.set_num_threads(1)
    model = trained(network, NETWORKS[network], seed, protocol, folder)
    layers, _ = _layers(network, model)
    images = dataset().evaluation("validation", limit=IMAGES)
    table = TimedLayers(layers)
    whole = network_latency(table, layers, {}, {})

    subject = MappingSubject(model, layers, SPARSITY, batches(protocol, seed), images, seed)
    accuracy = judge(subject, RECALIBRATION)
    row: dict[str, Any] = {"network": network, "seed": seed, "sparsity": SPARSITY, "images": IMAGES}
    for name in ("search", "random"):
        problem = MappingProblem(
            layers, accuracy, latency=BOUNDS[network][0] * whole, sparsity=SPARSITY, table=table
        )
        if name == "search":
            found = search(environment(problem), episodes=4 * EVALUATIONS, evaluations=EVALUATIONS, seed=seed)
        else:
            found = random_search(environment(problem), evaluations=EVALUATIONS, seed=seed)
        row[name] = {
            "evaluations": found.evaluations,
            "reward": found.reward,
            "accuracy": found.best.accuracy,
            "latency": found.best.latency / whole,
            "mapping": {t: str(p) for t, p in found.mapping.patterns.items()},
        }
    return row
