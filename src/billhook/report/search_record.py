"""`SearchRecord`: what a study says about a search, as plain data for tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from billhook.allocate.budget import METRICS
from billhook.errors import InputError, NameNotFoundError
from billhook.search.pareto import hypervolumes
from billhook.search.studies.trial import Trial, comparable, front, most_accurate, ranked


class _StudyLike(Protocol):
    """What is read of a `billhook.search.Study`."""

    @property
    def name(self) -> str: ...
    @property
    def facts(self) -> Mapping[str, Any]: ...
    def finished(self) -> Mapping[int, Trial]: ...


@dataclass(frozen=True)
class GeneRecord:
    """One decision of a search.

    Attributes:
        kind: "channels" or "density".
        target: The group or the tensor.
        values: What may be chosen, rising; the last is all there is.
    """

    kind: str
    target: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class SearchRecord:
    """A search as far as it has come.

    Attributes:
        place: The file or URL of its study, without a password.
        name: Of the study there.
        method: The searcher.
        metric: The cost on the other axis.
        genes: What is decided.
        original: Metric → cost of the network that loses nothing, in base units.
        limits: Metric → bound that candidates keep, in base units.
        trials: Those that are finished, in order.
        planned: How many were asked for; None if that is not known.
        seed: Of the search.
        model: The network.
        data: The data set.
        accuracy: Of the original on the same images; None if that is not known.
    """

    place: str
    name: str
    method: str
    metric: str
    genes: tuple[GeneRecord, ...]
    original: Mapping[str, float]
    limits: Mapping[str, float]
    trials: tuple[Trial, ...]
    planned: int | None = None
    seed: int = 0
    model: str = ""
    data: str = ""
    accuracy: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, study: _StudyLike, place: str) -> SearchRecord:
        """Return what a study holds now."""
        facts = study.facts
        genes = []
        for gene in facts["genes"]:
            kind, _, target = str(gene["name"]).partition(" ")
            genes.append(GeneRecord(kind, target, tuple(map(float, gene["values"]))))
        return cls(
            place=place,
            name=study.name,
            method=str(facts["method"]),
            metric=str(facts["metric"]),
            genes=tuple(genes),
            original=facts["original"],
            limits=facts["limits"],
            trials=tuple(trial for _, trial in sorted(study.finished().items())),
            planned=facts.get("trials"),
            seed=int(facts["seed"]),
            model=str(facts.get("network", "")),
            data=str(facts.get("data", "")),
            accuracy=facts.get("accuracy"),
            options=facts.get("options", {}),
        )

    @property
    def title(self) -> str:
        """What tells it apart from others."""
        return self.method if self.name == "search" else f"{self.method} ({self.name})"

    @cached_property
    def comparable(self) -> tuple[Trial, ...]:
        """The trials whose accuracies can be compared; see `billhook.search.studies.trial.comparable`."""
        return tuple(comparable(self.trials))

    @cached_property
    def best(self) -> Trial | None:
        """The most accurate trial within the limits; None if there are no limits, or no trial keeps them."""
        return most_accurate(self.comparable, self.limits) if self.limits else None

    @cached_property
    def front(self) -> tuple[Trial, ...]:
        """The trials that no other beats in both accuracy and cost, the cheapest first."""
        return tuple(front(self.comparable, self.metric))

    def ranked(self) -> list[Trial]:
        """Return the trials within the limits, the most accurate first; of equal genes, the first only."""
        return ranked(self.comparable, self.limits)

    def fits(self, trial: Trial) -> bool:
        """Return whether a trial keeps the limits."""
        return trial.within(self.limits)

    def share(self, trial: Trial) -> float:
        """Return the cost of a trial relative to the original's."""
        return trial.costs[self.metric] / self.original[self.metric]

    def trial(self, number: int) -> Trial:
        """Return a trial; raises `InputError` if it is not finished or does not exist."""
        found = next((t for t in self.trials if t.number == number), None)
        if found is None:
            raise InputError(
                f"{self.place}: there is no finished trial {number}; there are {len(self.trials)}, from 0 on"
            )
        return found

    def kept(self, trial: Trial) -> tuple[float, ...]:
        """Return what stays of each gene's group or tensor, as fractions."""
        return tuple(g.values[i] / g.values[-1] for g, i in zip(self.genes, trial.genes, strict=True))

    def best_so_far(self) -> list[float | None]:
        """Return the accuracy of the best trial within the limits up to each trial; None before the first.

        Of those that were judged as it was: where a searcher changes its objective, the line begins anew.
        """
        found: list[float | None] = []
        best: dict[str, float] = {}
        for trial in self.trials:
            if self.fits(trial):
                best[trial.key] = max(trial.accuracy, best.get(trial.key, trial.accuracy))
            found.append(best.get(trial.key))
        return found

    def volumes(self) -> list[float]:
        """Return the hypervolume up to each trial: the part of the square that the trials dominate.

        The square goes from no cost and full accuracy to the original's cost and accuracy 0. As with
        `best_so_far`, only trials that were judged alike count together.
        """
        found: dict[int, float] = {}
        for key in dict.fromkeys(t.key for t in self.trials):
            alike = [t for t in self.trials if t.key == key]
            found.update(zip((t.number for t in alike), self._volumes(alike), strict=True))
        return [found[t.number] for t in self.trials]

    @property
    def volume(self) -> float:
        """The hypervolume of all trials that can be compared; 0 if there are none."""
        return self._volumes(self.comparable)[-1] if self.trials else 0.0

    def _volumes(self, trials: Sequence[Trial]) -> list[float]:
        rows = [(self.share(t), 1 - t.accuracy) for t in trials]
        return [float(v) for v in hypervolumes(rows, (1.0 + 1e-9, 1.0))]


def require_comparable(records: Sequence[SearchRecord]) -> None:
    """Raise `InputError` unless searches have the same cost on the other axis."""
    metrics = {r.metric: r.place for r in records}
    if len(metrics) > 1:
        listed = "; ".join(f"{place} by {metric}" for metric, place in metrics.items())
        raise InputError(f"searches are compared by one cost, these are not: {listed}")
    for metric in metrics:
        if metric not in METRICS:
            raise NameNotFoundError("cost metric", metric, METRICS)
