"""Which blocks to leave free, to unify and to prune, so that as little as possible is lost: exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Roles = npt.NDArray[np.uint8]

FREE, UNIFIED, PRUNED = 0, 1, 2
_STEPS = 60  # of the bisection: then what is left of the interval is below the rounding of the largest loss


def best_roles(pruning: Floats, shared: Floats, pruned: int, unified: int) -> Roles:
    """Return the role of every block with the least total loss.

    An assignment to three bins of given sizes. With a bonus for pruning, the rest is a sort: a block that is
    not free gets the cheaper of the two other roles; those stay free for which that costs most. The number
    of pruned blocks grows with the bonus, so bisection finds the bonus at which it passes the number that is
    wanted; two solutions for the same bonus differ by steps that cost nothing, and as many of these
    are taken as it needs. Costs one partition of the blocks per step of the bisection.

    Args:
        pruning: What pruning a block loses, Σw².
        shared: How much less unifying it loses, n · mean|w|².
        pruned: How many blocks are pruned.
        unified: How many are unified; the others are free.
    """
    if pruned + unified == len(pruning):
        return _with(np.full(len(pruning), UNIFIED, dtype=np.uint8), _smallest(shared, pruned), PRUNED)
    if not unified or not pruned:
        losses, role = (pruning, PRUNED) if pruned else (pruning - shared, UNIFIED)
        return _with(np.full(len(pruning), FREE, dtype=np.uint8), _smallest(losses, pruned + unified), role)
    unifying = np.maximum(pruning - shared, 0.0)

    def at(bonus: float) -> Roles:
        """Return the roles when every pruned block earns a bonus."""
        chosen = _smallest(np.minimum(unifying, pruning - bonus), pruned + unified)
        roles = np.where(pruning - bonus < unifying, PRUNED, UNIFIED).astype(np.uint8)
        roles[~chosen] = FREE
        return roles

    low, high = 0.0, 2 * float(pruning.max()) + 1e-300
    below, above = at(low), at(high)
    for _ in range(_STEPS):
        if not int((below == PRUNED).sum()) < pruned < int((above == PRUNED).sum()):
            break
        middle = low + (high - low) / 2
        roles = at(middle)
        if int((roles == PRUNED).sum()) <= pruned:
            low, below = middle, roles
        else:
            high, above = middle, roles
    if int((above == PRUNED).sum()) == pruned:
        return above
    return _between(below, above, pruned)


def _between(below: Roles, above: Roles, pruned: int) -> Roles:
    """Return a solution of the same price as two others, with a number of pruned blocks between theirs."""
    roles = below.copy()
    missing = pruned - int((roles == PRUNED).sum())
    direct = np.flatnonzero((below == UNIFIED) & (above == PRUNED))[:missing]
    roles[direct] = PRUNED
    missing -= len(direct)
    roles[np.flatnonzero((below == UNIFIED) & (above == FREE))[:missing]] = FREE
    roles[np.flatnonzero((below == FREE) & (above == PRUNED))[:missing]] = PRUNED
    return roles


def _smallest(values: Floats, count: int) -> npt.NDArray[np.bool_]:
    """Return which are the `count` smallest; of equal ones, the first."""
    if count in (0, len(values)):
        return np.full(len(values), bool(count))
    threshold = np.partition(values, count - 1)[count - 1]
    flags: npt.NDArray[np.bool_] = values < threshold
    flags[np.flatnonzero(values == threshold)[: count - int(flags.sum())]] = True
    return flags


def _with(roles: Roles, flags: npt.NDArray[np.bool_], role: int) -> Roles:
    roles[flags] = role
    return roles
