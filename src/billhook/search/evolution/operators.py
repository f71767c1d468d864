"""How rows of genes have children: crossover and mutation, of fractions and of whole genes.

Fractions are what JCW's operators work on: [rows, genes], each between a lower and an upper bound. Genes are
indices, [rows, genes], from 0 to below the number of options of each gene. All chance comes from `rng`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from billhook.errors import InputError

Floats = npt.NDArray[np.float64]
Genes = npt.NDArray[np.int64]
Generator = np.random.Generator


def crossover_sbx(rows: Floats, rng: Generator, *, eta: float = 0.5, prob: float = 0.5) -> Floats:
    """Return two children of every pair of parents by simulated binary crossover; [rows, genes].

    A child gene is ½[(1±β) p1 + (1∓β) p2]: both children have the mean of their parents, and β spreads them
    as if parents' bits had been cut and joined. They may leave the bounds. The higher `eta`, the closer to
    the parents.

    Args:
        rows: Parents, the first with the second, the third with the fourth, …; an even number of rows.
        rng: Draws β, who gets which child gene, and which genes cross over at all.
        eta: Distribution index of β.
        prob: Of each gene to cross over; others stay those of the parents.
    Raises:
        InputError: for an odd number of rows.
    References:
        Deb and Agrawal, "Simulated Binary Crossover for Continuous Search Space", Complex Systems 1995.
        Parameters as in Zhao et al., "Joint Channel and Weight Pruning for Model Acceleration on Mobile
        Devices", 2021. arXiv:2110.08013.
    """
    if len(rows) % 2:
        raise InputError(f"crossover needs pairs of parents, got {len(rows)} rows")
    first, second = rows[0::2], rows[1::2]
    u = rng.random(first.shape)
    beta = np.where(u <= 0.5, 2 * u, 1 / (2 * (1 - u))) ** (1 / (eta + 1))
    near = ((1 + beta) * first + (1 - beta) * second) / 2
    far = ((1 - beta) * first + (1 + beta) * second) / 2
    swap = rng.random(first.shape) < 0.5
    stay = rng.random(first.shape) > prob
    children = np.empty_like(rows, dtype=np.float64)
    children[0::2] = np.where(stay, first, np.where(swap, far, near))
    children[1::2] = np.where(stay, second, np.where(swap, near, far))
    return children


def mutate_polynomial(
    rows: Floats, low: Floats, high: Floats, rng: Generator, *, eta: float = 15.0, prob: float | None = None
) -> Floats:
    """Return the rows with some genes moved, most of them a little; [rows, genes], within the bounds.

    Args:
        rows: Fractions within the bounds.
        low: Least fraction of each gene: [genes].
        high: Largest; a gene with equal bounds does not move.
        rng: Draws which genes move and how far.
        eta: Distribution index: the higher, the shorter the moves.
        prob: Of each gene to move; None: 1 / genes, one gene of each row on average.
    References:
        Deb and Goyal, "A Combined Genetic Adaptive Search (GeneAS) for Engineering Design", 1996; the bounded
        form is that of Deb's NSGA-II code.
    Differs from the source:
        JCW's code clips into an array that it throws away; here, the result is what was clipped.
    """
    genes = rows.shape[1]
    moving = (rng.random(rows.shape) <= (1 / max(1, genes) if prob is None else prob)) & (low < high)
    u = rng.random(rows.shape)
    span = np.where(low < high, high - low, 1.0)
    down, up = 1 - (rows - low) / span, 1 - (high - rows) / span
    power = eta + 1
    step = np.where(
        u < 0.5,
        _root(2 * u + (1 - 2 * u) * down**power, power) - 1,
        1 - _root(2 * (1 - u) + 2 * (u - 0.5) * up**power, power),
    )
    return np.clip(np.where(moving, rows + step * span, rows), low, high)


def mutate_uniform(rows: Genes, sizes: Genes, rng: Generator, prob: float = 0.1) -> Genes:
    """Return the rows with some genes replaced by any other option; [rows, genes].

    A gene that moves gets an offset from 1 to its number of options less one, modulo that number: every other
    option is equally likely, from the largest to the smallest too. A gene with one option stays.

    References:
        Liu et al., "MetaPruning: Meta Learning for Automatic Neural Network Channel Pruning", ICCV 2019,
        section 3.2 (offsets as in its code). arXiv:1903.10258.
    """
    _require_within(rows, sizes)
    moving = (rng.random(rows.shape) < prob) & (sizes > 1)
    offsets = rng.integers(1, np.maximum(sizes, 2), size=rows.shape)
    return np.where(moving, (rows + offsets) % sizes, rows)


def crossover_uniform(rows: Genes, sizes: Genes, rng: Generator, prob: float = 0.5) -> Genes:
    """Return one child of every pair of parents: each gene is that of one of them; [rows / 2, genes].

    Args:
        rows: Parents, the first with the second, the third with the fourth, …; an even number of rows.
        sizes: Options of each gene; children stay within them because their parents are.
        rng: Draws whose gene it is.
        prob: That it is the second parent's.
    Raises:
        InputError: for an odd number of rows, or genes that have no such option.
    References:
        Liu et al., "MetaPruning", ICCV 2019, section 3.2. arXiv:1903.10258.
    """
    _require_within(rows, sizes)
    if len(rows) % 2:
        raise InputError(f"crossover needs pairs of parents, got {len(rows)} rows")
    return np.where(rng.random(rows[0::2].shape) < prob, rows[1::2], rows[0::2])


def pairs(count: int, parents: int, rng: Generator) -> Genes:
    """Return `count` pairs of different parents, as rows of parents one after the other: [2 · count].

    With one parent, it is paired with itself.
    """
    first = rng.integers(parents, size=count)
    other = (first + rng.integers(1, max(2, parents), size=count)) % parents
    return np.stack([first, other], 1).reshape(-1)


def without_repeats(rows: Genes, known: Iterable[tuple[int, ...]] = ()) -> Genes:
    """Return the rows that are not `known`, each once, in their order; [rows, genes]."""
    seen, kept = set(known), []
    for i, row in enumerate(map(tuple, rows.tolist())):
        if row not in seen:
            seen.add(row)
            kept.append(i)
    return rows[kept]


def _root(values: Floats, power: float) -> Floats:
    # What rounding makes smaller than 0 has no root.
    return np.asarray(np.maximum(values, 0.0) ** (1 / power), dtype=np.float64)


def _require_within(rows: Genes, sizes: Genes) -> None:
    if rows.ndim != 2 or rows.shape[1] != len(sizes) or ((rows < 0) | (rows >= sizes)).any():
        raise InputError(
            f"rows of shape {list(rows.shape)} do not fit {len(sizes)} genes; each must be from 0 to below "
            "its number of options"
        )
