"""The wall: no action of an agent leads to a candidate beyond the budget."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from billhook.search.costs import SearchCosts
from billhook.search.space import Genes

Indices = npt.NDArray[np.int64]


def behind_wall(costs: SearchCosts, rows: Genes, gene: int, wanted: Indices) -> Indices:
    """Return the largest allowed value of a gene that is not above the wanted one.

    Allowed is what keeps all limits of the budget with the genes of the row that are not decided at their
    lowest. If the row itself is allowed, so is what comes out: after the last gene, the candidate is. Values
    are those that can be had, so that no rounding comes after.

    Args:
        costs: Costs and limits.
        rows: Decided genes; those that are not decided, this one too, at their lowest: [rows, genes].
        gene: Whose turn it is.
        wanted: Index of the value that is asked for: [rows].
    References:
        He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices", ECCV 2018,
        algorithm 1, for any cost that can be computed.
    Differs from the source:
        The source solves for a ratio and rounds it up to a multiple of 8 afterwards, which in 1 % of random
        policies ends above the budget.
    """
    found = wanted.copy()
    if not costs.limits:
        return found
    asked = rows.copy()
    asked[:, gene] = wanted
    above = np.flatnonzero(~costs.within(asked))
    if not len(above):
        return found
    # Every value below the wanted one, of every row that asks for too much, at once: [tries].
    row = np.repeat(above, wanted[above])
    value = np.concatenate([np.arange(wanted[r]) for r in above])
    tried = rows[row]
    tried[:, gene] = value
    allowed = costs.within(tried)
    found[above] = 0
    np.maximum.at(found, row[allowed], value[allowed])
    return found
