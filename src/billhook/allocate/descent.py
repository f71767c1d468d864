"""The way down from the full network on which every step loses the least score for the work it saves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from billhook.allocate.allocator import Space
from billhook.allocate.costs import Floats, Work
from billhook.allocate.rounding import Counts

_STEPS = 64  # of one group; a step of a wide group takes several units, which a path of thousands can bear
_NOTHING = 1e-12  # of the full network's work; what saves less is taken last


def descent(
    space: Space, scores: Sequence[Floats], branches: Sequence[tuple[int, ...]], work: Work
) -> Counts:
    """Return the networks from the full to the smallest one: [steps + 1, groups].

    In each step either one group keeps one allowed width less, and loses its least units, or one branch
    leaves, and loses all that is left in it. The step with the least ratio of score lost to work saved is
    taken; of equal ones, the one that saves more. All steps that are left are judged anew each time.

    A branch that leaves becomes narrow first, so that there are networks between those with and without it.

    Args:
        space: Allowed widths and costs.
        scores: Per group, one score per unit, none negative; a sum of them is what removing the units loses.
        branches: Positions of the groups of every branch that may leave.
        work: What counts as saved.
    """
    value = [np.concatenate([[0.0], np.cumsum(-np.sort(-s))]) for s in scores]  # of the best n units
    ladders = [_thinned(a) for a in space.allowed]
    at = [len(ladder) - 1 for ladder in ladders]
    counts = np.array([ladder[-1] for ladder in ladders], dtype=np.int64)
    around = [[b for b, groups in enumerate(branches) if g in groups] for g in range(len(counts))]

    moves = np.tile(counts, (len(counts) + len(branches), 1))  # what each step would leave, by row
    lost, possible = np.zeros(len(moves)), np.ones(len(moves), dtype=bool)

    def update(group: int) -> None:
        """Bring all moves up to date with the width of a group."""
        moves[:, group] = counts[group]
        narrower = at[group] > 0 and counts[group] > 0
        possible[group] = narrower
        if narrower:
            moves[group, group] = ladders[group][at[group] - 1]
            lost[group] = value[group][counts[group]] - value[group][moves[group, group]]
        for b in around[group]:
            row = len(counts) + b
            moves[row, group] = 0
            left = [g for g in branches[b] if counts[g]]
            possible[row] = bool(left)
            lost[row] = sum(value[g][counts[g]] for g in left)

    for group in range(len(counts)):
        update(group)
    way = [counts.copy()]
    least = _NOTHING * float(space.costs.work(counts[None], work)[0])
    leaving: int | None = None  # row of the branch that is on its way out
    while possible.any():
        rows = np.flatnonzero(possible)
        if leaving is not None:
            narrower = [g for g in branches[leaving - len(counts)] if possible[g]]
            rows = np.array(narrower or [leaving])
        found = space.costs.work(np.concatenate([moves[rows], counts[None]]), work)
        saved = np.maximum(found[-1] - found[:-1], least)
        ratios = lost[rows] / saved
        equal = np.flatnonzero(ratios <= ratios.min())
        best = int(rows[equal[np.argmax(saved[equal])]])
        if best >= len(counts) and leaving is None:
            leaving = best
            continue
        changed = [best] if best < len(counts) else list(branches[best - len(counts)])
        if best == leaving:
            leaving = None
        for group in changed:
            counts[group] = moves[best, group]
            at[group] = max(0, at[group] - 1)
        for group in changed:
            update(group)
        way.append(counts.copy())
    return np.array(way)


def _thinned(allowed: Counts) -> Counts:
    """Return at most `_STEPS` + 1 of the widths, the first and the last one among them."""
    if len(allowed) <= _STEPS + 1:
        return allowed
    return allowed[np.unique(np.linspace(0, len(allowed) - 1, _STEPS + 1).round().astype(np.int64))]
