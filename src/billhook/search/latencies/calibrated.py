"""Models that are calibrated on whole candidates: terms by formula, coefficients by timing."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from billhook.errors import StorageError
from billhook.search.latencies.calibration import Calibration, calibrate, held_out
from billhook.search.latencies.model import CandidateLatency, LatencyRecord, read, written
from billhook.search.latencies.samples import Rig, spread, time_rows
from billhook.search.latencies.table import LayerTable, TableTerms
from billhook.search.latencies.work import WorkTerms
from billhook.search.problem import SearchProblem
from billhook.search.space import Floats, Genes, Space

log = logging.getLogger("billhook")

Kind = Literal["table", "fitted"]
SAMPLES: dict[Kind, int] = {"table": 12, "fitted": 24}
_FAR = 0.1  # mean error from which on somebody should know


class Terms(Protocol):
    """What time grows with."""

    @property
    def penalty(self) -> Floats:
        """What the square of each coefficient costs: [terms]."""
        ...

    def of(self, rows: Genes) -> Floats:
        """Return terms relative to those of the original: [rows, terms]; none falls where a gene rises."""
        ...


@dataclass(frozen=True)
class CalibratedState:
    """All that a model consists of, besides the space.

    Attributes:
        record: How it was made.
        calibration: From terms to time, relative to the original's.
        table: Times of layers; None of a fitted model, whose terms are formulas.
        format: Of the file.
    """

    record: LatencyRecord
    calibration: Calibration
    table: LayerTable | None = None
    format: Literal["billhook.row_latency/1"] = "billhook.row_latency/1"


class CalibratedLatency(CandidateLatency):
    """Latency by formula, in microseconds per candidate once it is made.

    "table": the time of single layers as the engine runs them, interpolated between widths and densities
    and added up. "fitted": multiplications and numbers read and written, for any runtime. Both are then
    calibrated on whole candidates, timed end to end in turns with the original.

    Args:
        space: The candidates.
        state: The model.
    Raises:
        StorageError: if the model was made for another space.
    """

    def __init__(self, space: Space, state: CalibratedState) -> None:
        state.record.require(space, "table", "fitted")
        self.record, self.state = state.record, state
        self._terms = terms_of(space, state.record.backend, state.table)
        if self._terms.of(space.highest[None]).shape[1] != len(state.calibration.coefficients):
            raise StorageError("latency model: has another number of coefficients than terms")
        self._original = float(self.of(space.highest[None])[0])

    @classmethod
    def measure(
        cls, problem: SearchProblem, kind: Kind, *, samples: int | None = None, rig: Rig | None = None
    ) -> CalibratedLatency:
        """Return the model of a network's candidates; half a minute ("table") or a minute ("fitted").

        Args:
            problem: What is searched.
            kind: "table" or "fitted".
            samples: Candidates that are timed end to end; None: the usual number.
            rig: Times plans; None: the problem's runtime does.
        Raises:
            InputError: for a table in a backend that times no layers, or densities in one to which zeros make
                no difference.
            UnsupportedError: for a table of a network that the engine cannot run; names the operators.
            EngineError: if the engine is not built.
            ExportError, MeasureError: if a candidate cannot be timed.
        """
        began, space = time.perf_counter(), problem.space
        table = LayerTable.measure(problem) if kind == "table" else None
        terms = terms_of(space, problem.backend, table)
        rng = np.random.default_rng(problem.seed)
        rows = spread(space, rng, SAMPLES[kind] if samples is None else samples)
        timed = time_rows(problem, rows, rig)
        given, penalty = terms.of(rows), terms.penalty
        errors = held_out(given, timed.ratios, penalty)
        calibration = calibrate(given, timed.ratios, penalty)
        seconds = time.perf_counter() - began
        record = LatencyRecord.of(problem, kind, timed.original, errors, seconds)
        tell = log.warning if record.mean_error > _FAR else log.info
        tell("latency: %s", record)
        return cls(space, CalibratedState(record, calibration, table))

    def of(self, rows: Genes) -> Floats:
        """Return the seconds of rows of genes: [rows]."""
        relative = self.state.calibration.of(self._terms.of(np.atleast_2d(rows)))
        return relative * self.record.original

    @property
    def original(self) -> float:
        """The seconds of the network that loses nothing, by the same formula as all others."""
        return self._original

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return written(self.state)

    @classmethod
    def from_dict(cls, space: Space, data: Any) -> CalibratedLatency:
        """Return the model that `to_dict` wrote; raises `StorageError`."""
        return cls(space, read(CalibratedState, data))


def terms_of(space: Space, backend: str, table: LayerTable | None) -> Terms:
    """Return what time grows with: the sum of a table, or work."""
    return WorkTerms(space, backend) if table is None else TableTerms(space, table)
