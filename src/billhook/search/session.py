"""`Session`: a search in progress, as its searcher sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from billhook.errors import BillhookError, InputError, StorageError
from billhook.search.costs import SearchCosts
from billhook.search.objective import Evaluation, Objective
from billhook.search.problem import SearchProblem
from billhook.search.space import Genes
from billhook.search.studies.heartbeat import beating
from billhook.search.studies.study import Claim, Study
from billhook.search.studies.trial import Trial, comparable, most_accurate
from billhook.search.workers import Workers

_PATIENCE = 0.5  # seconds between looks at what other machines have finished
Made = Objective | Callable[[], Objective]


class StopSearch(Exception):
    """All trials that were asked for are done."""


class Session:
    """A search in progress.

    Attributes:
        problem: What is to be made smaller.
        space: The candidates.
        costs: Their costs and limits.
        objective: What candidates are worth; a searcher may bring its own.
        seed: Of every draw.
        trials: How many candidates are evaluated in all.
        planned: How many there were to be when the search began; what a searcher makes of a number of trials
            follows from this one, so that a search may go on beyond it.
        parallel: How many are evaluated side by side: batches of this size keep all workers busy.
        metric: The cost that is weighed against accuracy.
        folder: Where a searcher keeps what it trains, so that a killed search need not train it again.
        done: Finished trials, in order.
        judge: What the last candidate was evaluated with; None if the study had all results.
        told: Is told of every trial when it is done.
    """

    def __init__(
        self,
        problem: SearchProblem,
        costs: SearchCosts,
        objective: Made,
        study: Study,
        workers: Workers,
        *,
        trials: int,
        planned: int,
        parallel: int,
        folder: Path,
    ) -> None:
        self.problem, self.space, self.costs = problem, problem.space, costs
        self.seed, self.metric = problem.seed, problem.metric
        self.trials, self.planned, self.parallel = trials, planned, parallel
        self.folder = folder
        self.done: list[Trial] = []
        self.judge: Objective | None = None
        self.told: Callable[[Trial], None] | None = None
        self._objective, self._study, self._workers = objective, study, workers
        self._known: dict[tuple[str, tuple[int, ...]], Trial] = {}

    @property
    def objective(self) -> Objective:
        """The usual objective: candidates inherit the trained weights. Made when it is first needed."""
        if not isinstance(self._objective, Objective):
            self._objective = self._objective()
        return self._objective

    @property
    def remaining(self) -> int:
        """How many candidates may still be evaluated."""
        return self.trials - len(self.done)

    def evaluate(
        self,
        rows: Sequence[Genes] | Genes,
        objective: Made | None = None,
        *,
        key: str | None = None,
        notes: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[Trial]:
        """Return what candidates are worth, in their order; fewer if the trials are used up on the way.

        Candidates are numbered on from the last call. A number that the study has finished already is not
        evaluated again, nor are genes that were evaluated before under the same key.

        Args:
            rows: Candidates.
            objective: Another objective than the usual one, or what makes it: only called if a candidate
                really has to be evaluated.
            key: Of an objective that is not made yet.
            notes: For each candidate, what to write down with its trial.
        Raises:
            StopSearch: if the trials are used up.
            StorageError: if the study has other genes for one of the numbers.
            InputError: if an evaluation gives no number.
        """
        if not self.remaining:
            raise StopSearch
        first, rows = len(self.done), list(rows)[: self.remaining]
        if objective is None and key is None:
            key = self.problem.key
        made = _Lazily((lambda: self.objective) if objective is None else objective, key)
        batch = _Batch(first, rows, list(notes or [{}] * len(rows)))
        try:
            self._carry_out(batch, made)
        except BaseException:
            for number, claim in batch.claims.items():
                self._study.fail(claim, f"interrupted while trial {number} was running")
            raise
        found = [batch.results[n] for n in batch.numbers]
        for trial in found:
            self._known.setdefault((trial.key, trial.genes), trial)
            self.done.append(trial)
            if self.told is not None:
                self.told(trial)
        return found

    def best(self, trials: Sequence[Trial] | None = None) -> Trial | None:
        """Return the most accurate of `trials` within the limits; None if there is none.

        By default of all so far that can be compared; see `comparable`.
        """
        given = comparable(self.done) if trials is None else trials
        return most_accurate(given, self.costs.limits)

    def _carry_out(self, batch: _Batch, made: _Lazily) -> None:
        while True:
            self._read(batch)
            if batch.complete:
                return
            for number in batch.waiting:
                if len(batch.claims) >= self._workers.size:
                    break
                self._begin(batch, number, made)
            if batch.claims:
                for number, result in self._workers.wait(_PATIENCE):
                    self._end(batch, number, result, made.key)
                self._study.beat()
            elif not batch.complete:
                self._study.pause(_PATIENCE)  # others are at work on what is left

    def _read(self, batch: _Batch) -> None:
        """Take what the study has of a batch."""
        finished = self._study.finished()
        for number in batch.waiting:
            trial = finished.get(number)
            if trial is None:
                continue
            if trial.genes != batch.genes(number):
                raise StorageError(
                    f"trial {number} of the study {self._study} has other genes than this search asks "
                    "for: it was made with other options, data or versions. Begin another study"
                )
            batch.results[number] = trial

    def _begin(self, batch: _Batch, number: int, made: _Lazily) -> None:
        genes = batch.genes(number)
        known = self._known.get((made.key, genes)) or batch.known(made.key, genes)
        if known is None and batch.running(genes):
            return  # the same candidate twice in a batch: the second waits for the first
        claim = self._study.claim(number, genes)
        if claim is None:
            return
        if known is not None:
            notes = batch.notes_of(number)
            trial = Trial(
                *(number, genes, known.accuracy, known.loss, known.costs),
                key=made.key,
                cached=True,
                notes=notes,
            )
            batch.results[number] = self._study.finish(claim, trial)
            return
        batch.claims[number] = claim
        with beating(self._study.beat):  # a searcher may have to train first
            self.judge = made.objective
        self._workers.use(self.judge)
        self._workers.submit(number, np.array(genes, dtype=np.int64))

    def _end(self, batch: _Batch, number: int, result: Evaluation | BillhookError, key: str) -> None:
        if number not in batch.claims:
            return
        genes = batch.genes(number)
        if isinstance(result, BillhookError):
            self._study.fail(batch.claims.pop(number), str(result))
            raise result
        row = np.array(genes, dtype=np.int64)
        costs = {m: float(v[0]) for m, v in self.costs.of(row).items()}
        notes = batch.notes_of(number)
        trial = Trial(number, genes, result.accuracy, result.loss, costs, result.seconds, key, notes=notes)
        if not trial.finite:
            self._study.fail(batch.claims.pop(number), "accuracy or loss is no number")
            raise InputError(
                f"trial {number} has an accuracy of {result.accuracy} and a loss of {result.loss}: look at "
                "the weights, the data, and the loss that was given"
            )
        batch.results[number] = self._study.finish(batch.claims.pop(number), trial)


class _Batch:
    """Candidates that are evaluated together."""

    def __init__(self, first: int, rows: Sequence[Genes], notes: Sequence[Mapping[str, Any]]) -> None:
        self.numbers = range(first, first + len(rows))
        self._genes = [tuple(int(g) for g in row) for row in rows]
        self._notes = notes
        self.results: dict[int, Trial] = {}
        self.claims: dict[int, Claim] = {}

    @property
    def complete(self) -> bool:
        return len(self.results) == len(self.numbers)

    @property
    def waiting(self) -> list[int]:
        """Numbers that nobody here is at work on."""
        return [n for n in self.numbers if n not in self.results and n not in self.claims]

    def genes(self, number: int) -> tuple[int, ...]:
        return self._genes[number - self.numbers.start]

    def notes_of(self, number: int) -> Mapping[str, Any]:
        return dict(self._notes[number - self.numbers.start])

    def running(self, genes: tuple[int, ...]) -> bool:
        return any(self.genes(n) == genes for n in self.claims)

    def known(self, key: str, genes: tuple[int, ...]) -> Trial | None:
        return next((t for t in self.results.values() if (t.key, t.genes) == (key, genes)), None)


class _Lazily:
    """An objective that is made when it is first needed."""

    def __init__(self, made: Made, key: str | None) -> None:
        self._made = made
        self._key = key

    @property
    def key(self) -> str:
        return self._key if self._key is not None else self.objective.key

    @property
    def objective(self) -> Objective:
        if not isinstance(self._made, Objective):
            self._made = self._made()
        return self._made
