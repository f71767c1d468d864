"""`Space`: what a search chooses from. One gene is a group's width or a tensor's density."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from billhook.allocate.rounding import Counts, allowed_counts
from billhook.errors import InputError, StorageError
from billhook.graph import ChannelGroup, Graph, Plan, make_plan
from billhook.graph.apply import free_batch
from billhook.graph.graph import capture_call
from billhook.graph.patterns import Pattern, wide
from billhook.graph.plan import Keep
from billhook.graph.slicing import cut_named, named_tensors
from billhook.graph.structure import Structure, viewed
from billhook.graph.weights import WeightLayer

Genes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Kind = Literal["channels", "density"]


@dataclass(frozen=True)
class Gene:
    """One decision.

    Attributes:
        kind: "channels" of a group, or "density" of a tensor.
        target: Id of the group, or name of the tensor.
        values: Units that stay, or the fraction of weights that is not zero; rising, the last is all of it.
    """

    kind: Kind
    target: str
    values: tuple[float, ...]

    @property
    def name(self) -> str:
        """What it is called in a study."""
        return f"{self.kind} {self.target}"

    @property
    def full(self) -> float:
        """The value at which nothing leaves."""
        return self.values[-1]


class Space:
    """All candidates of a search; a candidate is a row of indices into the values of each gene.

    Args:
        graph: The captured network, that runs candidates; for any batch size where it allows that.
        channels: Group id → units that it may keep, rising up to its size; others keep all.
        order: Group id → its units, those that stay longest first.
        densities: Tensor → densities that it may have, rising up to 1.
        patterns: Tensor → which of its weights leave together.
        whole: The network captured with the example inputs, whose batch its costs are those of; a graph for
            any batch size was captured with a larger one. None: `graph`.
    """

    def __init__(
        self,
        graph: Graph,
        channels: Mapping[str, Sequence[int]],
        order: Mapping[str, npt.NDArray[np.int64]],
        densities: Mapping[str, Sequence[float]] | None = None,
        patterns: Mapping[str, Pattern] | None = None,
        whole: Graph | None = None,
    ) -> None:
        self.whole = graph if whole is None else whole
        self.graph, self.order, self.patterns = graph, dict(order), dict(patterns or {})
        self.groups: tuple[ChannelGroup, ...] = tuple(g for g in graph.groups if g.id in channels)
        wanted = densities or {}
        self.layers: tuple[WeightLayer, ...] = tuple(la for la in self.whole.weights if la.tensor in wanted)
        self.genes: tuple[Gene, ...] = (
            *(Gene("channels", g.id, tuple(map(float, channels[g.id]))) for g in self.groups),
            *(Gene("density", la.tensor, tuple(map(float, wanted[la.tensor]))) for la in self.layers),
        )
        if not self.genes:
            raise InputError(
                "there is nothing to search: no group in scope may have another width, and no tensor another "
                "density. Widen the scope, lower round_to, or give a pattern"
            )
        self.sizes = np.array([len(g.values) for g in self.genes], dtype=np.int64)
        self.lowest, self.highest = np.zeros_like(self.sizes), self.sizes - 1
        self._table = np.full((len(self.genes), int(self.sizes.max())), np.nan)
        for i, gene in enumerate(self.genes):
            self._table[i, : len(gene.values)] = gene.values
        self._full = np.array([g.full for g in self.genes])
        at = {name: i for i, name in enumerate(graph.costs.group_ids)}
        self._columns = [at[g.id] for g in self.groups]
        self.model: nn.Module | None = None

    def of(self, model: nn.Module) -> Space:
        """Remember the network, which other processes need to capture it anew; return the space."""
        self.model = model
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave the graph out, which cannot be sent: its operators are made again where the space arrives."""
        if self.model is None:
            raise InputError("a space that knows no network cannot go to another process")
        return {**self.__dict__, "graph": (self.whole.call, self.whole.mixing), "whole": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        call, mixing = state["graph"]
        self.__dict__.update(state)
        assert self.model is not None
        self.whole = capture_call(self.model, call, mixing)
        self.graph = free_batch(self.model, self.whole)[0]

    @cached_property
    def signature(self) -> str:
        """Names the space in a study: another network, scope, pattern or set of values has another one."""
        patterns = [str(self.patterns[layer.tensor]) for layer in self.layers]
        text = json.dumps([self.graph.fingerprint, [[g.name, g.values] for g in self.genes], patterns])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def values(self, rows: Genes) -> Floats:
        """Return the values that rows of genes stand for: [rows, genes]."""
        table: Floats = self._table[np.arange(len(self.genes)), np.atleast_2d(rows)]
        return table

    def fractions(self, rows: Genes) -> Floats:
        """Return the values relative to all that there is: [rows, genes], above 0 and up to 1."""
        fractions: Floats = self.values(rows) / self._full
        return fractions

    def nearest(self, fractions: npt.ArrayLike) -> Genes:
        """Return the genes whose values are nearest to these fractions: [rows, genes]; ties go up."""
        wanted = np.atleast_2d(np.asarray(fractions, dtype=np.float64)) * self._full
        found = np.empty(wanted.shape, dtype=np.int64)
        for i, gene in enumerate(self.genes):
            values = np.array(gene.values)
            found[:, i] = np.searchsorted((values[1:] + values[:-1]) / 2, wanted[:, i], side="right")
        return found

    def random(self, rng: np.random.Generator, rows: int) -> Genes:
        """Return rows in which every value of a gene is as likely: [rows, genes]."""
        return rng.integers(0, self.sizes, size=(rows, len(self.genes)), dtype=np.int64)

    def counts(self, rows: Genes) -> Counts:
        """Return the units that stay, of all prunable groups of the network: [rows, groups of its costs]."""
        chosen = self.values(rows)
        counts = np.tile(self.graph.costs.sizes, (len(chosen), 1))
        counts[:, self._columns] = chosen[:, : len(self.groups)].round().astype(np.int64)
        return counts

    def densities(self, rows: Genes) -> dict[str, Floats]:
        """Return the densities of the tensors that have a gene: [rows] each."""
        chosen = self.values(rows)[:, len(self.groups) :]
        return {layer.tensor: chosen[:, i] for i, layer in enumerate(self.layers)}

    def keep(self, genes: Genes) -> dict[str, Keep]:
        """Return the units that stay of every group with a gene, for one row."""
        result: dict[str, Keep] = {}
        chosen = self.values(genes)[0]
        for group, count in zip(self.groups, chosen, strict=False):
            mask = np.zeros(group.size, dtype=bool)
            mask[self.order[group.id][: round(count)]] = True
            result[group.id] = mask
        return result

    def plan(self, genes: Genes, tensors: Mapping[str, Tensor] | nn.Module, **made_by: Any) -> Plan:
        """Return the plan of one row.

        Args:
            genes: One row.
            tensors: The network, or its tensors by name, in full size: where densities are below 1, the
                largest of the weights that are left stay.
            made_by: What the plan says about itself.
        """
        plan = make_plan(self.graph, self.keep(genes), **made_by)
        return plan.with_patterns(self.structures(genes, plan, tensors)) if self.layers else plan

    def structures(
        self, genes: Genes, plan: Plan, tensors: Mapping[str, Tensor] | nn.Module
    ) -> dict[str, Structure]:
        """Return the structures of the tensors whose density is below 1, of what `plan` leaves of them."""
        named = dict(named_tensors(tensors)) if isinstance(tensors, nn.Module) else tensors
        kept, found = self.graph.kept(plan), {}
        for layer, density in zip(self.layers, self.values(genes)[0][len(self.groups) :], strict=True):
            if density < 1:
                left = cut_named(layer.tensor, named[layer.tensor], kept)
                found[layer.tensor] = largest(layer, self.patterns[layer.tensor], left, 1 - float(density))
        return found

    def of_plan(self, plan: Plan) -> Genes:
        """Return the genes of a plan; raises `StorageError` if it keeps a number that no gene has."""
        fractions = np.ones(len(self.genes))
        for i, gene in enumerate(self.genes):
            if gene.kind == "channels":
                fractions[i] = plan.counts.get(gene.target, gene.full) / gene.full
            elif gene.target in plan.patterns:
                fractions[i] = 1 - plan.patterns[gene.target].sparsity
        genes: Genes = self.nearest(fractions)[0]
        off = np.abs(self.fractions(genes)[0] - fractions)
        if (off[: len(self.groups)] > 1e-9).any():
            gene = self.genes[int(off[: len(self.groups)].argmax())]
            raise StorageError(
                f"the plan keeps {plan.counts[gene.target]} units of {gene.target!r}, which is none of the "
                "numbers that the search chooses from"
            )
        return genes


def channel_values(group: ChannelGroup, fits: Any, lowest: float) -> tuple[int, ...]:
    """Return the numbers of units that a group may keep: those that fit, from the fraction `lowest` on."""
    least = max(1, ceil(lowest * group.size - 1e-9))
    return tuple(int(n) for n in allowed_counts(group.size, group.width, fits) if n >= least)


def largest(layer: WeightLayer, pattern: Pattern, weight: Tensor, sparsity: float) -> Structure:
    """Return the structure that keeps the most energy of what is left of a layer's weight."""
    view = wide(viewed(weight.detach(), transposed=layer.transposed))
    low, high = pattern.sparsities((view.shape[0], view.shape[1], view.shape[2]))
    energy = view.square()
    parts = pattern.choose(view, pattern.units_for(energy, min(max(sparsity, low), high)))
    return Structure(pattern, tuple(weight.shape), parts, layer.transposed)


def ranked(scores: Mapping[str, Tensor]) -> dict[str, npt.NDArray[np.int64]]:
    """Return the units of every group, the highest score first; among equals, lower indices first."""
    return {
        name: torch.argsort(-s.double(), stable=True).cpu().numpy().astype(np.int64)
        for name, s in scores.items()
    }
