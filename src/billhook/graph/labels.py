"""Names for channels: integer labels that flow through the network and are unified where they meet.

Every axis of every parameter starts with fresh labels, one per index. Rules (`graph.rules`) say which
labels leave an operator given those that enter; where two labels must leave together they are unified.
Label 0 stands for an index that can never leave; `None` for a dimension that carries no channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from billhook.graph.groups import Reason

Labels = npt.NDArray[np.int64]
Dims = list[Labels | None]  # one entry per dimension of a tensor
FIXED = 0


@dataclass
class LabelStore:
    """Collects unifications and freezes as arrays; `components` solves them all at once."""

    _next: int = 1
    _edges: list[tuple[Labels, Labels]] = field(default_factory=list)
    _frozen: list[tuple[Labels, Reason]] = field(default_factory=list)
    _mixed: list[tuple[Labels, Reason]] = field(default_factory=list)

    def fresh(self, count: int) -> Labels:
        """Return `count` labels nobody has."""
        labels = np.arange(self._next, self._next + count, dtype=np.int64)
        self._next += count
        return labels

    def unify(self, a: Labels, b: Labels, reason: Reason) -> None:
        """Make a[i] and b[i] leave together; where one of them is fixed, freeze the other."""
        a, b = np.broadcast_arrays(a, b)
        a, b = a.reshape(-1), b.reshape(-1)
        free = (a != FIXED) & (b != FIXED)
        if free.all():
            self._edges.append((a, b))
            return
        self._edges.append((a[free], b[free]))
        self.freeze(np.concatenate((a[~free], b[~free])), reason)

    def freeze(self, labels: Labels, reason: Reason) -> None:
        """Make sure `labels` never leave; the first reason is the one that is told."""
        labels = labels[labels != FIXED]
        if labels.size:
            self._frozen.append((labels, reason))

    def mark_mixed(self, labels: Labels, reason: Reason) -> None:
        """Note that removing `labels` changes the others (layer norm, softmax over channels, …)."""
        labels = labels[labels != FIXED]
        if labels.size:
            self._mixed.append((labels, reason))

    def components(self) -> Components:
        """Return the connected components of everything unified so far."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        heads = [e[0] for e in self._edges] or [np.empty(0, np.int64)]
        tails = [e[1] for e in self._edges] or [np.empty(0, np.int64)]
        i, j = np.concatenate(heads), np.concatenate(tails)
        ones = np.ones(len(i), dtype=np.int8)
        graph = coo_array((ones, (i, j)), shape=(self._next, self._next))
        count, of = connected_components(graph, directed=False)
        reasons: list[Reason] = []
        return Components(
            of.astype(np.int64),
            _first(self._frozen, of, count, reasons),
            _first(self._mixed, of, count, reasons),
            reasons,
        )


@dataclass(frozen=True)
class Components:
    """Which labels leave together.

    Attributes:
        of: Component of each label; shape [labels].
        frozen, mixed: Index into `reasons` per component, -1 if none.
        reasons: Why components are frozen or mixed.
    """

    of: npt.NDArray[np.int64]
    frozen: npt.NDArray[np.int64]
    mixed: npt.NDArray[np.int64]
    reasons: list[Reason]


def _first(
    events: list[tuple[Labels, Reason]], of: npt.NDArray[np.int64], count: int, reasons: list[Reason]
) -> npt.NDArray[np.int64]:
    """Return per component the index of the first event that touches it, -1 if none."""
    first = np.full(count, -1, dtype=np.int64)
    known = {reason: i for i, reason in enumerate(reasons)}
    for labels, reason in reversed(events):
        if reason not in known:
            known[reason] = len(reasons)
            reasons.append(reason)
        first[of[labels]] = known[reason]
    return first
