"""Costs as formulas of the plan: no network is built to know what it costs.

The length of every dimension is affine in the number of units each group keeps; a layer's MACs, a tensor's
size and the memory alive at a step are sums of products of such lengths. `CostModel` evaluates them for
thousands of plans at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt
from torch import fx

from billhook.errors import InputError, PlanError, suggest
from billhook.graph.branches import Branch
from billhook.graph.labels import Labels
from billhook.graph.liveness import bytes_of, owners
from billhook.graph.partition import Partition
from billhook.graph.plan import Plan
from billhook.graph.rules import Flow
from billhook.graph.weights import weight_name
from billhook.results import Cost

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64] | npt.NDArray[np.float64]
Affine = tuple[int, tuple[tuple[int, int], ...]]

METRICS = ("macs", "params", "bytes", "peak_activation_bytes")


@dataclass(frozen=True)
class Products:
    """Σ over terms: constant × product of up to a few dimension lengths.

    Attributes:
        constant: Shape [terms].
        dims: Positions in the table of dimensions, padded with the dimension of length 1; [terms, factors].
        branch: Position of the innermost branch that holds what the term counts, -1 if none; [terms].
    """

    constant: Floats
    dims: npt.NDArray[np.int64]
    branch: npt.NDArray[np.int64]

    def terms(self, lengths: Floats, stays: Floats | None = None) -> Floats:
        """Return every term for lengths [plans, dimensions]; shape [plans, terms].

        Args:
            lengths: Of all dimensions.
            stays: 1 where a branch stays, 0 where it is gone [plans, branches + 1], the last column for what
                is in none; None if all stay.
        """
        result: Floats = np.broadcast_to(self.constant, (len(lengths), len(self.constant))).copy()
        for factor in self.dims.T:
            result *= lengths[:, factor]
        if stays is not None:
            result *= stays[:, self.branch]
        return result


class CostModel:
    """Costs of a network as functions of how many units its prunable groups keep."""

    def __init__(self, flow: Flow, partition: Partition, branches: Sequence[Branch] = ()) -> None:
        self._flow, self._partition, self._branches = flow, partition, tuple(branches)
        by_size = sorted(range(len(branches)), key=lambda b: -len(branches[b].nodes))  # inner ones last
        self._of_node = {node: b for b in by_size for node in branches[b].nodes}
        self._of_tensor = {name: b for b in by_size for name in branches[b].tensors}
        prunable = [(i, g) for i, g in enumerate(partition.groups) if g.prunable]
        self.group_ids: tuple[str, ...] = tuple(g.id for _, g in prunable)
        self.sizes: npt.NDArray[np.int64] = np.array([g.size for _, g in prunable], dtype=np.int64)
        self._column = {i: c for c, (i, _) in enumerate(prunable)}
        self._dimensions: dict[Affine, int] = {(1, ()): 0}
        self._layers = [t.node for t in flow.mac_terms]
        self._macs = self._products(
            (t.constant, t.dims, self._of_node.get(t.node, -1)) for t in flow.mac_terms
        )
        axes = {n: (*a, self._of_tensor.get(n, -1)) for n, a in _tensor_axes(flow, partition).items()}
        self._tensors = list(axes)
        self._params = self._products(axes[n] for n in axes if n in flow.program.parameters)
        self._bytes = self._products((c * flow.program.itemsizes[n], d, b) for n, (c, d, b) in axes.items())
        self._values, self._alive = self._liveness(flow, {})

    def evaluate(self, counts: Counts, metrics: Sequence[str] = METRICS) -> dict[str, Floats]:
        """Return the metrics of many plans at once.

        Args:
            counts: Units kept per prunable group, columns as in `group_ids`; shape [plans, groups]. A branch
                is gone where a group of its own has none; nothing in it costs anything then.
            metrics: Which of "macs", "params", "bytes", "peak_activation_bytes" to compute, and "layers", the
                number of operators with MACs that are left.
        Returns:
            One float64 array [plans] per metric.
        Raises:
            InputError: if a metric is unknown or the columns do not fit.
        """
        table = np.atleast_2d(np.asarray(counts, dtype=np.float64))
        if table.shape[1] != len(self.group_ids):
            raise InputError(
                f"counts have {table.shape[1]} columns; the network has {len(self.group_ids)} prunable groups"
            )
        for metric in metrics:
            if metric not in (*METRICS, "layers"):
                raise InputError(f"unknown cost metric {metric!r}{suggest(metric, METRICS)}")
        lengths, stays = table @ self._slopes + self._constants, self._stays(table)
        values, alive = (self._values, self._alive) if stays is None else self._values_of_branches
        compute = {
            "macs": lambda: self._macs.terms(lengths, stays).sum(1),
            "params": lambda: self._params.terms(lengths, stays).sum(1),
            "bytes": lambda: self._bytes.terms(lengths, stays).sum(1),
            "layers": lambda: ((self._macs.terms(lengths, stays) @ self._of_layer) > 0).sum(1).astype(float),
            "peak_activation_bytes": lambda: (values.terms(lengths, stays) @ alive).max(1, initial=0),
        }
        return {metric: compute[metric]() for metric in metrics}

    def counts(self, plan: Plan | None) -> npt.NDArray[np.int64]:
        """Return units kept per prunable group; shape [groups]."""
        kept = {} if plan is None else plan.counts
        return np.array(
            [kept.get(g, s) for g, s in zip(self.group_ids, self.sizes, strict=True)], dtype=np.int64
        )

    def cost(self, plan: Plan | None = None) -> Cost:
        """Return the cost of the network under `plan` (the whole network if None).

        Of tensors with patterns only what is left counts: the numbers that are stored, and multiplications
        with weights that are not zero. Whether a runtime skips the others is another matter.

        Raises:
            PlanError: if a pattern does not fit what the plan keeps of its tensor.
        """
        values = self.evaluate(self.counts(plan)[None])
        whole = Cost(**{metric: round(float(v[0])) for metric, v in values.items()})
        return whole if plan is None or not plan.patterns else self._without(plan, whole)

    def macs_by_layer(self, plan: Plan | None = None) -> dict[str, int]:
        """Return MACs by layer name, in the order of the forward pass."""
        from billhook.graph.capture import layer_of

        counts = self.counts(plan)[None].astype(np.float64)
        terms = self._macs.terms(counts @ self._slopes + self._constants, self._stays(counts))
        result: dict[str, int] = {}
        for node, macs in zip(self._layers, terms[0], strict=True):
            name = layer_of(node) or node.name
            result[name] = result.get(name, 0) + round(float(macs))
        return result

    def of_weights(self, counts: Counts, tensors: Sequence[str]) -> tuple[Floats, Floats]:
        """Return how often some weights multiply and how many numbers they have, for many plans at once.

        Args:
            counts: As for `evaluate`; shape [plans, groups].
            tensors: Names of weights of convolutions and linear layers.
        Returns:
            MACs and numbers, shape [plans, tensors] each; 0 where the layer is gone.
        """
        table = np.atleast_2d(np.asarray(counts, dtype=np.float64))
        lengths, stays = table @ self._slopes + self._constants, self._stays(table)
        of_tensor = self._weight_of[:, None] == np.array(tensors, dtype=np.str_)
        at = [self._tensors.index(name) for name in tensors]
        itemsizes = [self._flow.program.itemsizes[name] for name in tensors]
        macs = self._macs.terms(lengths, stays) @ of_tensor.astype(np.float64)
        return macs, self._bytes.terms(lengths, stays)[:, at] / np.array(itemsizes, dtype=np.float64)

    def _without(self, plan: Plan, whole: Cost) -> Cost:
        """Return the cost without what patterns take away."""
        counts = self.counts(plan)[None].astype(np.float64)
        lengths, stays = counts @ self._slopes + self._constants, self._stays(counts)
        macs, sizes = self._macs.terms(lengths, stays)[0], self._bytes.terms(lengths, stays)[0]
        params, size = whole.params, whole.bytes
        for name, structure in plan.patterns.items():
            itemsize = self._flow.program.itemsizes.get(name, 1)
            weights = round(sizes[self._tensors.index(name)]) // itemsize if name in self._tensors else None
            if weights != prod(structure.shape):
                left = "does not have it" if weights is None else f"keeps {weights} weights of it"
                raise PlanError(
                    f"the plan's pattern for {name!r} is for the shape {list(structure.shape)}, the network "
                    f"{left}; it was made for another network"
                )
            macs = np.where(self._weight_of == name, macs * structure.nonzeros / weights, macs)
            params -= weights - structure.values
            size -= weights * itemsize - structure.stored_bytes(itemsize)
        return replace(whole, macs=round(float(macs.sum())), params=params, bytes=size)

    @cached_property
    def _weight_of(self) -> npt.NDArray[np.str_]:
        """The weight that each term of the MACs multiplies with, "" if it is none: [terms]."""
        return np.array([weight_name(self._flow.program, node) or "" for node in self._layers], dtype=np.str_)

    @cached_property
    def _constants(self) -> Floats:
        return np.array([constant for constant, _ in self._dimensions], dtype=np.float64)

    @cached_property
    def _slopes(self) -> Floats:
        slopes = np.zeros((len(self.group_ids), len(self._dimensions)))
        for at, (_, terms) in enumerate(self._dimensions):
            for group, width in terms:
                slopes[self._column[group], at] += width
        return slopes

    @cached_property
    def _of_layer(self) -> Floats:
        """1 where a term of the MACs belongs to an operator: [terms, operators]."""
        layers = list(dict.fromkeys(self._layers))
        return np.array([[float(n is m) for m in layers] for n in self._layers]).reshape(-1, len(layers))

    @cached_property
    def _own_columns(self) -> list[list[int]]:
        """Columns of the groups which, if empty, remove a branch: its own and those of branches around it."""
        at = {name: c for c, name in enumerate(self.group_ids)}
        return [
            [at[g] for around in self._branches if inner.nodes <= around.nodes for g in around.own]
            for inner in self._branches
        ]

    @cached_property
    def _values_of_branches(self) -> tuple[Products, Floats]:
        return self._liveness(self._flow, self._of_node)

    def _stays(self, table: Floats) -> Floats | None:
        """Return per plan and branch 1 if it stays, 0 if it is gone; None if all stay in all plans."""
        if not self._branches or table.all():
            return None
        stays = [(table[:, columns] > 0).all(1) for columns in self._own_columns]
        return np.stack([*stays, np.ones(len(table), dtype=bool)], axis=1).astype(np.float64)

    def _outer(self, a: int, b: int) -> int:
        """Return the outer one of two branches, -1 if one of them is none."""
        return -1 if -1 in (a, b) else max(a, b, key=lambda i: len(self._branches[i].nodes))

    def _dimension(self, labels: Labels) -> int:
        return self._dimensions.setdefault(self._partition.affine(labels), len(self._dimensions))

    def _products(self, terms: Iterable[tuple[int, Sequence[Labels], int]]) -> Products:
        rows = [(constant, [self._dimension(d) for d in dims], branch) for constant, dims, branch in terms]
        return _as_products(rows)

    def _liveness(self, flow: Flow, branches: Mapping[fx.Node, int]) -> tuple[Products, Floats]:
        """Return the distinct sizes of activations and how many of each are alive at every step.

        Memory that a branch fills and others read or change later counts even if the branch is gone.
        """
        nodes = list(flow.program.graph.nodes)
        owner, last = owners(flow, nodes)
        sizes: dict[tuple[int, tuple[int, ...], int], int] = {}
        size_of: dict[fx.Node, int] = {}
        branch_of: dict[fx.Node, int] = {}
        for node, source in owner.items():
            branch_of[source] = self._outer(
                branches.get(node, -1), branch_of.get(source, branches.get(node, -1))
            )
        for node, branch in branch_of.items():
            constant, dims = bytes_of(flow, node)
            key = (constant, tuple(sorted(self._dimension(d) for d in dims)), branch)
            size_of[node] = sizes.setdefault(key, len(sizes))
        born = {node: i for i, node in enumerate(nodes)}
        change = np.zeros((len(sizes), len(nodes) + 1))
        for node, at in size_of.items():
            change[at, born[node]] += 1
            change[at, last[node] + 1] -= 1
        alive = np.unique(change.cumsum(1)[:, :-1], axis=1) if sizes else np.zeros((0, 1))
        return _as_products([(c, list(d), b) for c, d, b in sizes]), alive


def _as_products(rows: Sequence[tuple[int, list[int], int]]) -> Products:
    """Return terms given as (constant, dimensions, branch)."""
    width = max((len(d) for _, d, _ in rows), default=1) or 1
    return Products(
        np.array([c for c, _, _ in rows], dtype=np.float64),
        np.array([d + [0] * (width - len(d)) for _, d, _ in rows], dtype=np.int64).reshape(len(rows), width),
        np.array([b for _, _, b in rows], dtype=np.int64),
    )


def _tensor_axes(flow: Flow, partition: Partition) -> dict[str, tuple[int, tuple[Labels, ...]]]:
    """Return (product of plain axes, labels of the others) of every parameter and buffer."""
    result: dict[str, tuple[int, tuple[Labels, ...]]] = {}
    for name, shape in flow.program.shapes.items():
        labelled = {a: partition.axes[name, a] for a in range(len(shape)) if (name, a) in partition.axes}
        plain = prod(s for a, s in enumerate(shape) if a not in labelled)
        result[name] = (plain, tuple(labelled.values()))
    return result
