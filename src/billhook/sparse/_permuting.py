"""Orders of the units of channel groups: what they do to tensors, and which of them need few gathers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from billhook.graph.groups import ChannelGroup, Member
from billhook.graph.weights import WeightLayer
from billhook.sparse._grouped_layers import Arrangement

Ints = npt.NDArray[np.int64]
Orders = Mapping[str, Ints]  # group → which old unit comes at every place; groups not named stay as they are

_SWEEPS = 4


@dataclass(frozen=True, eq=False)
class PivotedLayer:
    """A layer whose weight is block-diagonal in some order of its outputs and inputs.

    Attributes:
        layer: Its weight, kind and size.
        rows: Block of every output.
        columns: Block of every input.
        reads: Numbers that a gather in front of it moves in one forward pass of the example inputs.
        writes: The same behind it.
    """

    layer: WeightLayer
    rows: Ints
    columns: Ints
    reads: int
    writes: int

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return int(self.rows.max()) + 1

    @property
    def axes(self) -> tuple[int, int]:
        """Axes of the weight that outputs and inputs lie on."""
        return (1, 0) if self.layer.transposed else (0, 1)


class Table:
    """Which groups own which axis of which tensor."""

    def __init__(self, groups: Sequence[ChannelGroup]) -> None:
        self._owners: dict[tuple[str, int], list[tuple[str, Member]]] = {}
        for group in groups:
            for member in group.members:
                self._owners.setdefault((member.tensor, member.axis), []).append((group.id, member))

    def axis_order(self, tensor: str, axis: int, size: int, orders: Orders) -> Ints:
        """Return which old index comes at every place of an axis."""
        result = np.arange(size)
        for group, member in self._owners.get((tensor, axis), ()):
            if group in orders:
                result[member.index] = member.index[orders[group]]
        return result

    def permute_(self, tensors: Mapping[str, Tensor], orders: Orders) -> None:
        """Put all tensors of the groups into the new orders, in place."""
        with torch.no_grad():
            for (name, axis), owners in self._owners.items():
                if any(group in orders for group, _ in owners):
                    tensor = tensors[name]
                    order = self.axis_order(name, axis, tensor.shape[axis], orders)
                    tensor.copy_(tensor.index_select(axis, torch.from_numpy(order).to(tensor.device)))
                    tensor.grad = None

    def sides(self, layer: PivotedLayer) -> tuple[list[str], list[str]]:
        """Return the groups that make the outputs of a layer, and those of its inputs."""
        rows, columns = (
            [group for group, _ in self._owners.get((layer.layer.tensor, axis), ())] for axis in layer.axes
        )
        return rows, columns

    def unit_blocks(self, group: str, tensor: str, axis: int, blocks: Ints) -> Ints:
        """Return the block of every unit of a group on an axis; of several indices, the first one's."""
        member = next(m for g, m in self._owners[tensor, axis] if g == group)
        return blocks[member.index[:, 0]]


def arrange(layer: PivotedLayer, table: Table, orders: Orders) -> Arrangement:
    """Return how a layer reads and writes its blocks when the groups are in these orders.

    Where inputs or outputs lie block by block already, the grouped layer takes or leaves them so. If both do,
    but in different orders of the blocks, the smaller tensor is gathered.
    """
    out, into = _partitions(layer, table, orders)
    by_rows, by_columns = runs(out, layer.blocks), runs(into, layer.blocks)
    before, after = by_columns is None, by_rows is None
    if by_rows is not None and by_columns is not None and by_rows != by_columns:
        before, after = layer.reads <= layer.writes, layer.reads > layer.writes
    order = (by_rows if before else by_columns) or list(range(layer.blocks))
    rows, columns = (np.stack([np.flatnonzero(part == b) for b in order]) for part in (out, into))
    return Arrangement(rows, columns, before, after)


def runs(partition: Ints, blocks: int) -> list[int] | None:
    """Return the blocks in the order in which they lie, None if one does not lie in one piece."""
    starts = np.concatenate(([0], np.flatnonzero(np.diff(partition)) + 1))
    return [int(b) for b in partition[starts]] if len(starts) == blocks else None


def moved(layer: PivotedLayer, arrangement: Arrangement) -> int:
    """Return how many numbers the gathers of a layer move in one forward pass."""
    return arrangement.before * layer.reads + arrangement.after * layer.writes


def best_orders(layers: Sequence[PivotedLayer], groups: Sequence[ChannelGroup]) -> dict[str, Ints]:
    """Return orders of the units under which gathers move few numbers.

    A group has one order for all who write and read it. Group after group takes, of the orders that some
    layer would like best, the one under which its layers need the least, until no group gains: a heuristic.
    """
    table = Table(groups)
    touching: dict[str, list[PivotedLayer]] = {}
    for layer in layers:
        for name in dict.fromkeys(g for side in table.sides(layer) for g in side):
            touching.setdefault(name, []).append(layer)
    orders: dict[str, Ints] = {}

    def cost(group: str, order: Ints) -> int:
        tried = {**orders, group: order}
        return sum(moved(x, arrange(x, table, tried)) for x in touching[group])

    for _ in range(_SWEEPS):
        gained = False
        for group in groups:
            if group.id not in touching:
                continue
            own = orders.get(group.id, np.arange(group.size))
            candidates = [own, *_wishes(group.id, touching[group.id], table, orders)]
            costs = [cost(group.id, c) for c in candidates]
            best = int(np.argmin(costs))  # of equal ones the first: what is there already
            if costs[best] < costs[0]:
                orders[group.id], gained = candidates[best], True
        if not gained:
            break
    return orders


def _wishes(group: str, layers: Sequence[PivotedLayer], table: Table, orders: Orders) -> list[Ints]:
    """Return an order of the units for every side of a layer that touches them: its blocks in one piece.

    Inside a block, units are in the order that the other sides wish for, most expensive first, so that finer
    and equal partitions are served as well.
    """
    keys: list[tuple[int, Ints]] = []
    for layer in layers:
        lying = [runs(part, layer.blocks) for part in _partitions(layer, table, orders)]
        partitions, weights = (layer.rows, layer.columns), (layer.writes, layer.reads)
        for side, owners in enumerate(table.sides(layer)):
            if group in owners:
                axis, partition, other = layer.axes[side], partitions[side], lying[1 - side]
                rank = np.argsort(other) if other is not None else np.arange(layer.blocks)
                blocks = table.unit_blocks(group, layer.layer.tensor, axis, partition)
                keys.append((weights[side], rank[blocks]))
    keys.sort(key=lambda k: -k[0])
    ranks = [rank for _, rank in keys]
    return [np.lexsort((*reversed(ranks[:i] + ranks[i + 1 :]), ranks[i])) for i in range(len(ranks))]


def _partitions(layer: PivotedLayer, table: Table, orders: Orders) -> tuple[Ints, Ints]:
    """Return the block of every output and input at its new place."""
    out, into = (
        partition[table.axis_order(layer.layer.tensor, axis, len(partition), orders)]
        for partition, axis in zip((layer.rows, layer.columns), layer.axes, strict=True)
    )
    return out, into
