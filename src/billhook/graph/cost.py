"""Costs as formulas of the plan: no network is built to know what it costs.

The length of every dimension is affine in the number of units each group keeps; a layer's MACs, a tensor's
size and the memory alive at a step are sums of products of such lengths. `CostModel` evaluates them for
thousands of plans at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from billhook.errors import InputError, suggest
from billhook.graph.labels import Dims, Labels
from billhook.graph.partition import Partition
from billhook.graph.plan import Plan
from billhook.graph.rules import Flow
from billhook.graph.rules._base import bind, shape_of
from billhook.results import Cost

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64] | npt.NDArray[np.float64]
Affine = tuple[int, tuple[tuple[int, int], ...]]

METRICS = ("macs", "params", "bytes", "peak_activation_bytes")
_ALIASES = frozenset(
    [
        "view",
        "reshape",
        "flatten",
        "unflatten",
        "squeeze",
        "unsqueeze",
        "permute",
        "transpose",
        "t",
        "expand",
        "expand_as",
        "select",
        "slice",
        "narrow",
        "split",
        "split_with_sizes",
        "chunk",
        "unbind",
        "alias",
        "detach",
        "dropout",
        "contiguous",
        "to",
        "view_as",
        "reshape_as",
        "swapaxes",
        "movedim",
        "mT",
    ]
)


@dataclass(frozen=True)
class Products:
    """Σ over terms: constant × product of up to a few dimension lengths.

    Attributes:
        constant: Shape [terms].
        dims: Positions in the table of dimensions, padded with the dimension of length 1; [terms, factors].
    """

    constant: Floats
    dims: npt.NDArray[np.int64]

    def terms(self, lengths: Floats) -> Floats:
        """Return every term for lengths [plans, dimensions]; shape [plans, terms]."""
        result: Floats = np.broadcast_to(self.constant, (len(lengths), len(self.constant))).copy()
        for factor in self.dims.T:
            result *= lengths[:, factor]
        return result


class CostModel:
    """Costs of a network as functions of how many units its prunable groups keep."""

    def __init__(self, flow: Flow, partition: Partition) -> None:
        self._partition = partition
        prunable = [(i, g) for i, g in enumerate(partition.groups) if g.prunable]
        self.group_ids: tuple[str, ...] = tuple(g.id for _, g in prunable)
        self.sizes: npt.NDArray[np.int64] = np.array([g.size for _, g in prunable], dtype=np.int64)
        self._column = {i: c for c, (i, _) in enumerate(prunable)}
        self._dimensions: dict[Affine, int] = {(1, ()): 0}
        self._layers = [t.node for t in flow.mac_terms]
        self._macs = self._products((t.constant, t.dims) for t in flow.mac_terms)
        axes = _tensor_axes(flow, partition)
        self._params = self._products(
            (c, d) for name, (c, d) in axes.items() if name in flow.program.parameters
        )
        self._bytes = self._products((c * flow.program.itemsizes[name], d) for name, (c, d) in axes.items())
        self._values, self._alive = self._liveness(flow)

    def evaluate(self, counts: Counts, metrics: Sequence[str] = METRICS) -> dict[str, Floats]:
        """Return the metrics of many plans at once.

        Args:
            counts: Units kept per prunable group, columns as in `group_ids`; shape [plans, groups].
            metrics: Which of "macs", "params", "bytes", "peak_activation_bytes" to compute.
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
            if metric not in METRICS:
                raise InputError(f"unknown cost metric {metric!r}{suggest(metric, METRICS)}")
        lengths = table @ self._slopes + self._constants
        compute = {
            "macs": lambda: self._macs.terms(lengths).sum(1),
            "params": lambda: self._params.terms(lengths).sum(1),
            "bytes": lambda: self._bytes.terms(lengths).sum(1),
            "peak_activation_bytes": lambda: (self._values.terms(lengths) @ self._alive).max(1, initial=0),
        }
        return {metric: compute[metric]() for metric in metrics}

    def counts(self, plan: Plan | None) -> npt.NDArray[np.int64]:
        """Return units kept per prunable group; shape [groups]."""
        kept = {} if plan is None else plan.counts
        return np.array(
            [kept.get(g, s) for g, s in zip(self.group_ids, self.sizes, strict=True)], dtype=np.int64
        )

    def cost(self, plan: Plan | None = None) -> Cost:
        """Return the cost of the network under `plan` (the whole network if None)."""
        values = self.evaluate(self.counts(plan)[None])
        return Cost(**{metric: round(float(v[0])) for metric, v in values.items()})

    def macs_by_layer(self, plan: Plan | None = None) -> dict[str, int]:
        """Return MACs by layer name, in the order of the forward pass."""
        from billhook.graph.capture import layer_of

        lengths = self.counts(plan)[None].astype(np.float64) @ self._slopes + self._constants
        result: dict[str, int] = {}
        for node, macs in zip(self._layers, self._macs.terms(lengths)[0], strict=True):
            name = layer_of(node) or node.name
            result[name] = result.get(name, 0) + round(float(macs))
        return result

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

    def _dimension(self, labels: Labels) -> int:
        return self._dimensions.setdefault(self._partition.affine(labels), len(self._dimensions))

    def _products(self, terms: Iterable[tuple[int, Sequence[Labels]]]) -> Products:
        rows = [(constant, [self._dimension(d) for d in dims]) for constant, dims in terms]
        width = max((len(d) for _, d in rows), default=1) or 1
        padded = [d + [0] * (width - len(d)) for _, d in rows]
        return Products(
            np.array([c for c, _ in rows], dtype=np.float64),
            np.array(padded, dtype=np.int64).reshape(len(rows), width),
        )

    def _liveness(self, flow: Flow) -> tuple[Products, Floats]:
        """Return the distinct sizes of activations and how many of each are alive at every step."""
        nodes = list(flow.program.graph.nodes)
        owner, last = _owners(flow, nodes)
        sizes: dict[tuple[int, tuple[int, ...]], int] = {}
        size_of: dict[fx.Node, int] = {}
        for node in set(owner.values()):
            constant, dims = _bytes_of(flow, node)
            key = (constant, tuple(sorted(self._dimension(d) for d in dims)))
            size_of[node] = sizes.setdefault(key, len(sizes))
        born = {node: i for i, node in enumerate(nodes)}
        change = np.zeros((len(sizes), len(nodes) + 1))
        for node, at in size_of.items():
            change[at, born[node]] += 1
            change[at, last[node] + 1] -= 1
        alive = np.unique(change.cumsum(1)[:, :-1], axis=1) if sizes else np.zeros((0, 1))
        width = max((len(d) for _, d in sizes), default=1) or 1
        products = Products(
            np.array([c for c, _ in sizes], dtype=np.float64),
            np.array([[*d, *[0] * (width - len(d))] for _, d in sizes], dtype=np.int64).reshape(
                len(sizes), width
            ),
        )
        return products, alive


def _tensor_axes(flow: Flow, partition: Partition) -> dict[str, tuple[int, tuple[Labels, ...]]]:
    """Return (product of plain axes, labels of the others) of every parameter and buffer."""
    result: dict[str, tuple[int, tuple[Labels, ...]]] = {}
    for name, shape in flow.program.shapes.items():
        labelled = {a: partition.axes[name, a] for a in range(len(shape)) if (name, a) in partition.axes}
        plain = prod(s for a, s in enumerate(shape) if a not in labelled)
        result[name] = (plain, tuple(labelled.values()))
    return result


def _bytes_of(flow: Flow, node: fx.Node) -> tuple[int, list[Labels]]:
    value, dims = node.meta["val"], flow.values.get(node)
    if isinstance(value, (list, tuple)):  # several results: count them as plain bytes
        parts = [v for v in value if isinstance(v, torch.Tensor)]
        return sum(v.element_size() * prod(int(s) for s in v.shape) for v in parts), []
    labels: Dims = list(dims) if dims else []  # type: ignore[arg-type]
    shape = shape_of(node)
    if len(labels) != len(shape):
        labels = [None] * len(shape)
    plain = prod(s for s, d in zip(shape, labels, strict=True) if d is None)
    return int(value.element_size()) * plain, [d for d in labels if d is not None]


def _owners(flow: Flow, nodes: Sequence[fx.Node]) -> tuple[Mapping[fx.Node, fx.Node], Mapping[fx.Node, int]]:
    """Return the node that owns each activation's memory, and the last step at which that memory is read."""
    owner: dict[fx.Node, fx.Node] = {}
    last: dict[fx.Node, int] = {}
    for step, node in enumerate(nodes):
        for operand in node.all_input_nodes:
            if operand in owner:
                last[owner[operand]] = step
        if node.op == "placeholder" and node.name in flow.program.inputs:
            owner[node], last[node] = node, step
        elif node.op == "call_function" and _has_tensor(node):
            source = next((n for n in node.all_input_nodes if n in owner), None)
            alias = _in_place(node) or bind(node).name in _ALIASES or "getitem" in str(node.target)
            if alias and source is None:
                continue  # a part of a weight
            owner[node] = owner[source] if alias and source is not None else node
            last[owner[node]] = step
    return owner, last


def _has_tensor(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) or (
        isinstance(value, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in value)
    )


def _in_place(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.name.endswith("_") and not schema.name.endswith("__")
