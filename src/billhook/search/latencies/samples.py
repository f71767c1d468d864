"""Candidates that are timed end to end, each in turns with the original network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from billhook.deploy import PlanLatency
from billhook.graph import Plan
from billhook.measure.rounds import QUICK
from billhook.search.problem import SearchProblem
from billhook.search.space import Floats, Genes, Space


@dataclass(frozen=True, eq=False)
class Samples:
    """Times of candidates.

    Attributes:
        rows: Their genes; [samples, genes].
        ratios: Their time over that of the original in the same turns; [samples].
        original: Seconds of the original, the median over all turns.
    """

    rows: Genes
    ratios: Floats
    original: float

    @property
    def seconds(self) -> Floats:
        """Times on a machine on which the original always takes `original`: [samples]."""
        return self.ratios * self.original


class PairOfTimes(Protocol):
    """Seconds of a candidate and of the original, from the same turns."""

    @property
    def ratio(self) -> float:
        """Candidate over original."""
        ...

    @property
    def original(self) -> float:
        """Of the original."""
        ...


Rig = Callable[[Plan], PairOfTimes]


def spread(space: Space, rng: np.random.Generator, rows: int) -> Genes:
    """Return candidates from the smallest to the largest, with genes of unequal size: [rows, genes].

    Uniform genes make networks that are nearly all of one cost; a model must also hold near both ends.
    """
    level = (rng.permutation(rows) + rng.random(rows)) / rows
    uneven = rng.normal(0.0, 0.25, (rows, len(space.genes)))
    share = np.clip(level[:, None] + uneven, 0, 1)
    genes: Genes = np.rint(share * space.highest).astype(np.int64)
    return genes


def rig_of(problem: SearchProblem) -> AbstractContextManager[Rig]:
    """Return what times plans in the problem's runtime, with its threads, one sample at a time."""
    timing = replace(QUICK, threads=problem.threads)
    return PlanLatency(problem.model, problem.example_inputs, backend=problem.backend, timing=timing)


def time_rows(problem: SearchProblem, rows: Genes, rig: Rig | None = None) -> Samples:
    """Return the times of candidates, 2 to 3 s each for a ResNet-20.

    Args:
        problem: What is searched.
        rows: Genes of the candidates.
        rig: Times plans; None: the problem's runtime does.
    Raises:
        ExportError: if a candidate cannot be exported.
        MeasureError: if timing fails.
    """
    with rig_of(problem) if rig is None else nullcontext(rig) as time:
        times: Sequence[PairOfTimes] = [time(problem.space.plan(row, problem.model)) for row in rows]
    original = float(np.median([t.original for t in times]))
    return Samples(rows, np.array([t.ratio for t in times]), original)
