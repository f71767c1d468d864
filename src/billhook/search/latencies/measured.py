"""Latency by measuring: every candidate is exported and timed end to end, once."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from billhook.json_record import read_json, write_json
from billhook.search.latencies.model import CandidateLatency, LatencyRecord, read, written
from billhook.search.latencies.samples import PairOfTimes, Rig, rig_of
from billhook.search.latencies.work import require_difference
from billhook.search.problem import SearchProblem
from billhook.search.space import Floats, Genes

KIND, FILE = "measured", "latency.json"
MAX_BYTES = 2**26


@dataclass(frozen=True)
class MeasuredTime:
    """The time of one candidate.

    Attributes:
        genes: Its row.
        ratio: Its time over that of the original in the same turns.
    """

    genes: tuple[int, ...]
    ratio: float


@dataclass(frozen=True)
class MeasuredState:
    """What was measured so far.

    Attributes:
        record: Where, and how long the original takes.
        times: Of candidates.
        format: Of the file.
    """

    record: LatencyRecord
    times: tuple[MeasuredTime, ...] = ()
    format: Literal["billhook.row_times/1"] = "billhook.row_times/1"


class MeasuredLatency(CandidateLatency):
    """Times candidates when they are asked for, 2 to 5 s each, and remembers them.

    For few candidates: a search that looks for rows within a budget on latency asks for thousands. Times have
    noise (1 to 3 %), so that a wider candidate may seem faster: the action wall of AMC cannot use them.

    Args:
        problem: What is searched.
        state: What was measured before; None: nothing.
        rig: Times plans; None: the problem's runtime does.
    Raises:
        InputError: if there are genes for densities, and zeros make no difference to the runtime.
        StorageError: if what was measured before belongs to other candidates.
    """

    monotone = False

    def __init__(
        self, problem: SearchProblem, state: MeasuredState | None = None, rig: Rig | None = None
    ) -> None:
        require_difference(problem.space, problem.backend)
        self._problem, self._rig, self._stack = problem, rig, ExitStack()
        self._file: Path | None = None
        self._ratios: dict[tuple[int, ...], float] = {_key(problem.space.highest): 1.0}
        if state is None:
            sample = self._time(problem.space.lowest)
            self.record = LatencyRecord.of(problem, KIND, sample.original)
            self._ratios[_key(problem.space.lowest)] = sample.ratio
        else:
            state.record.require(problem.space, KIND)
            self.record = state.record
            self._ratios |= {t.genes: t.ratio for t in state.times}

    def of(self, rows: Genes) -> Floats:
        """Return the seconds of rows of genes, timing those that are new: [rows].

        Raises:
            ExportError, MeasureError: if a candidate cannot be timed.
            StorageError: if its time cannot be kept.
        """
        for row in np.atleast_2d(rows):
            if _key(row) not in self._ratios:
                self._ratios[_key(row)] = self._time(row).ratio
                self._keep()
        return self.record.original * np.array([self._ratios[_key(row)] for row in np.atleast_2d(rows)])

    @property
    def original(self) -> float:
        """The seconds of the network that loses nothing."""
        return self.record.original

    def to_dict(self) -> dict[str, Any]:
        """Return all times so far as plain data for JSON."""
        times = tuple(MeasuredTime(genes, ratio) for genes, ratio in self._ratios.items())
        return written(MeasuredState(self.record, times))

    @classmethod
    def from_dict(cls, problem: SearchProblem, data: Any) -> MeasuredLatency:
        """Return the model that `to_dict` wrote; raises `StorageError`."""
        return cls(problem, read(MeasuredState, data))

    def keep_in(self, folder: Path) -> None:
        """Keep every time in a file of this folder: a search that is killed goes on with the same times.

        Raises:
            StorageError: if the file there is damaged, of other candidates, or cannot be written.
        """
        self._file = folder / FILE
        if self._file.exists():
            there: MeasuredState = read(MeasuredState, read_json(self._file, MAX_BYTES))
            there.record.require(self._problem.space, KIND)
            self._ratios |= {t.genes: t.ratio for t in there.times}
        self._keep()

    def close(self) -> None:
        """Stop the process that times the original; asking for a new candidate starts it again."""
        self._stack.close()

    def _keep(self) -> None:
        if self._file is not None:
            write_json(self._file, self.to_dict())

    def _time(self, row: Genes) -> PairOfTimes:
        if self._rig is None:
            self._rig = self._stack.enter_context(rig_of(self._problem))
            self._stack.callback(setattr, self, "_rig", None)
        return self._rig(self._problem.space.plan(row, self._problem.model))


def _key(row: Genes) -> tuple[int, ...]:
    return tuple(int(gene) for gene in row)
