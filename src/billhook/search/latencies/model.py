"""What every model of candidates' latency has: times of rows, how they were found, and a form on disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from billhook.errors import StorageError
from billhook.json_record import decode, encode
from billhook.measure.backend import backends
from billhook.measure.environment import environment, versions
from billhook.search.problem import SearchProblem
from billhook.search.space import Floats, Genes, Space


@dataclass(frozen=True)
class LatencyRecord:
    """How a model was made and how far it is off.

    Attributes:
        kind: Of the model: "table", "fitted" or "measured".
        space: Signature of the candidates.
        backend: Runtime that was timed.
        runtime: Its library and version.
        cpu: Processor.
        machine: Its architecture.
        threads: Of the runtime.
        original: Seconds of the original network, the median of all turns.
        samples: How many candidates were timed end to end, each in turns with the original.
        mean_error: Of candidates that the model had not seen: |predicted / measured − 1|, the mean.
        worst_error: The largest.
        seconds: What it took to make the model.
    """

    kind: str
    space: str
    backend: str
    runtime: str
    cpu: str
    machine: str
    threads: int
    original: float
    samples: int = 0
    mean_error: float = 0.0
    worst_error: float = 0.0
    seconds: float = 0.0

    @classmethod
    def of(
        cls,
        problem: SearchProblem,
        kind: str,
        original: float,
        errors: npt.ArrayLike = (),
        seconds: float = 0.0,
    ) -> LatencyRecord:
        """Return the record of a model that was made here and now.

        Args:
            problem: What is searched.
            kind: Of the model.
            original: Seconds of the original network.
            errors: Relative errors on candidates that were not seen.
            seconds: What it took.
        """
        here, library = environment(), backends.get(problem.backend).library
        off = np.abs(np.asarray(errors, dtype=np.float64))
        return cls(
            kind=kind,
            space=problem.space.signature,
            backend=problem.backend,
            runtime=f"{library} {versions((library,)).get(library, '')}".strip(),
            cpu=here["cpu"],
            machine=here["machine"],
            threads=problem.threads,
            original=original,
            samples=len(off),
            mean_error=float(off.mean()) if len(off) else 0.0,
            worst_error=float(off.max(initial=0.0)),
            seconds=seconds,
        )

    def require(self, space: Space, *kinds: str) -> None:
        """Raise `StorageError` if the record is that of another kind of model or of other candidates."""
        if self.kind not in kinds:
            raise StorageError(f"latency model: is {self.kind!r}, expected {' or '.join(map(repr, kinds))}")
        if self.space != space.signature:
            raise StorageError("latency model: was made for other candidates; make a new one")

    def __str__(self) -> str:
        where = f"{self.runtime} on {self.cpu}, {self.threads} thread{'s' * (self.threads > 1)}"
        if self.kind == "measured":
            return f"measured end to end, {where}"
        return (
            f"{self.kind}, {where}; off by {self.mean_error:.1%} in the mean and {self.worst_error:.1%} at "
            f"most on {self.samples} networks it had not seen"
        )


class CandidateLatency(ABC):
    """Seconds of candidates; see `billhook.search.costs.RowLatency`.

    Attributes:
        monotone: Whether a larger value of a gene never takes less time.
        record: How it was made.
    """

    monotone: ClassVar[bool] = True
    record: LatencyRecord

    @abstractmethod
    def of(self, rows: Genes) -> Floats:
        """Return the seconds of rows of genes: [rows]."""

    @property
    @abstractmethod
    def original(self) -> float:
        """The seconds of the network that loses nothing, as the model sees it."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: another process and another machine then have the same times."""

    def keep_in(self, folder: Path) -> None:  # noqa: B027 (most are whole once they are made)
        """Keep what is learned from now on in a folder, and learn what is there already."""

    def close(self) -> None:  # noqa: B027 (most keep nothing open)
        """Stop what is running to time candidates; asking again starts it again."""


def written(state: Any) -> dict[str, Any]:
    """Return a state (a frozen dataclass) as plain data; raises `StorageError`."""
    data: dict[str, Any] = encode(state, "latency model")
    return data


def read(kind: type[Any], data: Any) -> Any:
    """Return the state that `written` wrote; raises `StorageError`, which names the entry that is wrong."""
    return decode(kind, data, "latency model")
