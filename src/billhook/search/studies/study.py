"""`Study`: the trials of a search, kept in an Optuna storage from the moment they are finished.

A candidate is an Optuna trial with its genes as parameters, so that optuna-dashboard and `optuna.load_study`
show it. Several processes and machines may work on one study: who evaluates a candidate claims it first,
which is a running trial with its owner and a heartbeat. A claim whose owner is dead or silent may be taken
over.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from billhook.errors import StorageError, suggest
from billhook.json_record import encode
from billhook.search.studies.identity import as_facts, check_facts, check_name, differences
from billhook.search.studies.owner import Owner
from billhook.search.studies.place import Place
from billhook.search.studies.storage import open_storage, readable
from billhook.search.studies.trial import Trial
from billhook.search.studies.trial_log import TrialLog
from billhook.search.studies.trial_table import COMPLETE, FAIL, TrialTable, add_study, find_study, study_names

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

BEAT = 10.0
"""Seconds between two signs of life."""


@dataclass(frozen=True)
class Claim:
    """The right to evaluate a candidate: its trial in Optuna, its number in the search, its genes."""

    trial: int
    number: int
    genes: tuple[int, ...]


class Study:
    """The trials of one search. Made by `of`, `create` or `open`; use it in a `with` block.

    Attributes:
        name: Its name; several studies may live in one place.
        facts: What the search is: method, options, seed, space, genes with their values, …; plain data.
    """

    def __init__(self, place: Place, engine: Engine, name: str) -> None:
        self.name = name
        self._place, self._engine = place, engine
        with self._reading() as connection:
            found = find_study(connection, name)
            names = study_names(connection) if found is None else []
        if found is None:
            hint = suggest(name, names) or "; there is none"
            raise StorageError(f"{place}: there is no study {name!r} here{hint}")
        study, self.facts = found
        check_facts(self.facts, str(self))
        self._genes: dict[str, list[float]] = {g["name"]: g["values"] for g in self.facts["genes"]}
        self._table = TrialTable(study, {n: len(values) for n, values in self._genes.items()})
        self._log = TrialLog(self._table, str(self))
        self._owner = Owner.new()
        self._mine: dict[int, Claim] = {}
        self._beaten = time.monotonic()
        self._rest = ExitStack()
        self._rest.callback(engine.dispose)

    @staticmethod
    def of(place: str | Path | None, name: str, facts: Mapping[str, Any]) -> Study:
        """Return the study of a search: the one that is there, or a new one.

        Args:
            place: See `Place.of`; None: a temporary file that goes away with the study.
            name: Of the study.
            facts: What the search is, plain data: "genes" is a list of {"name", "values"}, "objectives" a
                list out of "accuracy", "loss" and "cost", "metric" the cost; see `identity` for what has to
                be as in the study that is there.
        Raises:
            InputError: if `place` or `name` cannot be one.
            StorageError: if it cannot be used, or the study there is that of another search.
        """
        if place is None:
            folder = tempfile.TemporaryDirectory(prefix="billhook-study-")
            study = Study.create(Path(folder.name) / "study.db", name, facts)
            study._rest.callback(folder.cleanup)
            return study
        where = Place.of(place)
        study = _made(where, name, facts)[0]
        others = differences(study.facts, as_facts(facts, str(where)))
        if others:
            study.close()
            raise StorageError(
                f"{study} belongs to another search: {'; '.join(others)}. Give another file or another name, "
                "or search with what it began with"
            )
        return study

    @staticmethod
    def create(place: str | Path, name: str, facts: Mapping[str, Any]) -> Study:
        """Return a new study; the errors are those of `of`, and `StorageError` if the name is taken."""
        study, new = _made(Place.of(place), name, facts)
        if not new:
            study.close()
            raise StorageError(f"{study} exists already; resume it, or give another file or another name")
        return study

    @staticmethod
    def open(place: str | Path, name: str = "search") -> Study:
        """Return a study that is there; the errors are those of `of`, and `StorageError` if it is missing."""
        where = Place.of(place)
        return _loaded(where, open_storage(where, create=False), name)

    @staticmethod
    def find(place: str | Path, name: str = "search") -> Study | None:
        """Return a study, None if there is none of that name; the other errors are those of `of`."""
        where = Place.of(place)
        if where.empty:
            return None
        engine = open_storage(where, create=True)  # a server may have no tables yet
        with ExitStack() as otherwise:
            otherwise.callback(engine.dispose)
            with readable(where), engine.connect() as connection:
                if find_study(connection.execution_options(reads=True), name) is None:
                    return None
            otherwise.pop_all()
        return _loaded(where, engine, name)

    @property
    def folder(self) -> Path:
        """The folder for what a searcher keeps between two runs; made when it is asked for."""
        folder = self._place.folder(self.name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise StorageError(f"{folder}: cannot be made: {e.strerror or e}") from None
        return folder

    def finished(self) -> Mapping[int, Trial]:
        """Return the finished trials by number; only what is new is read."""
        with self._reading() as connection:
            self._log.read(connection)
        return MappingProxyType(self._log.finished)

    def claim(self, number: int, genes: Sequence[int]) -> Claim | None:
        """Return the right to evaluate a candidate; None if it is finished, or another process has it.

        Raises:
            StorageError: if the data base cannot be used.
        """
        if number in self._log.finished or self._taken(number):
            return None
        chosen = tuple(int(g) for g in genes)
        with self._writing() as connection:
            rivals = self._log.rivals(number)
            if number in self._log.finished or any(self._log.alive(connection, r) for r in rivals):
                return None
            for rival in rivals:
                self._table.end(connection, rival, FAIL, {"error": "its process died or fell silent"})
            trial = self._insert(connection, number, chosen)
        for rival in rivals:
            self._log.forget(rival)
        self._log.begin(trial, number, self._owner)
        self._mine[trial] = Claim(trial, number, chosen)
        return self._mine[trial]

    def finish(self, claim: Claim, trial: Trial) -> Trial:
        """Keep a finished trial for good, and return the one that counts.

        That is another one if the claim was taken over meanwhile and the other process was faster.

        Raises:
            StorageError: if accuracy or loss is no number, which counts as failed, or the data base cannot be
                used.
        """
        if not trial.finite:
            self.fail(claim, f"accuracy {trial.accuracy}, loss {trial.loss}")
            raise StorageError(f"trial {trial.number}: accuracy or loss is no number, so it is not kept")
        found = encode({**trial.to_dict(), "key": trial.key}, f"trial {trial.number}")
        kept = {k: v for k, v in found.items() if k not in ("number", "genes")}  # `claim` has written these
        with self._writing() as connection:
            late, running = claim.number in self._log.finished, claim.trial in self._log.running
            row = claim.trial
            if late and running:
                self._table.end(connection, row, FAIL, {"error": "another process was faster"})
            elif not late:
                if not running:
                    row = self._insert(connection, claim.number, claim.genes)
                self._table.end(connection, row, COMPLETE, kept, self._values(trial))
        self._mine.pop(claim.trial, None)
        self._log.forget(claim.trial)
        if not late:
            if not running:
                self._log.begin(row, claim.number, self._owner)
            self._log.end(row, {"number": claim.number, "genes": claim.genes, **kept})
        return self._log.finished[claim.number]

    def fail(self, claim: Claim, why: str) -> None:
        """Give a claim back: the candidate may be claimed again. Raises `StorageError`."""
        self._mine.pop(claim.trial, None)
        with self._writing() as connection:
            if claim.trial in self._log.running:
                self._table.end(connection, claim.trial, FAIL, {"error": why})
        self._log.forget(claim.trial)

    def beat(self) -> None:
        """Give a sign of life for all claims, if it is time. Raises `StorageError`."""
        if time.monotonic() - self._beaten < BEAT:
            return
        self._beaten = time.monotonic()
        if self._mine:
            with self._writing() as connection:
                self._table.beat(connection, self._mine)

    def pause(self, seconds: float) -> None:
        """Wait while others are at work."""
        time.sleep(seconds)
        self.beat()

    def close(self) -> None:
        """Give all claims back and let go of the data base; safe to call twice."""
        with self._rest:
            for claim in list(self._mine.values()):
                self.fail(claim, "the search ended")

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *exc: object) -> None:
        if exc[0] is None:
            self.close()
        else:
            with suppress(StorageError):  # it would hide what happened
                self.close()

    def __str__(self) -> str:
        return f"{self._place}: the study {self.name!r}"

    def _taken(self, number: int) -> bool:
        """Tell without a lock if another process is at work on a number."""
        rivals = self._log.rivals(number)
        if not rivals:
            return False
        with self._reading() as connection:
            return any(self._log.alive(connection, rival) for rival in rivals)

    def _insert(self, connection: Connection, number: int, genes: tuple[int, ...]) -> int:
        values = {name: its[gene] for (name, its), gene in zip(self._genes.items(), genes, strict=True)}
        attributes = {"number": number, "genes": genes, "values": values, "owner": self._owner.to_dict()}
        return self._table.insert(connection, self._log.count, genes, attributes)

    def _values(self, trial: Trial) -> list[float]:
        """Return the values of the study's objectives."""
        known = {"accuracy": trial.accuracy, "loss": trial.loss}
        return [
            known[o] if o in known else trial.costs[self.facts["metric"]] for o in self.facts["objectives"]
        ]

    @contextmanager
    def _reading(self) -> Generator[Connection]:
        with readable(self._place), self._engine.connect() as connection:
            yield connection.execution_options(reads=True)

    @contextmanager
    def _writing(self) -> Generator[Connection]:
        """A transaction that no other changes the trials in, up to date when it begins."""
        with readable(self._place), self._engine.begin() as connection:
            self._table.lock(connection)
            self._log.read(connection)
            yield connection


def _loaded(place: Place, engine: Engine, name: str) -> Study:
    try:
        return Study(place, engine, name)
    except BaseException:
        engine.dispose()
        raise


def _made(place: Place, name: str, facts: Mapping[str, Any]) -> tuple[Study, bool]:
    """Return a study and whether it is new."""
    check_name(name)
    plain = as_facts(facts, f"{place}: the study {name!r}")
    engine = open_storage(place, create=True)
    try:
        with readable(place):
            new = add_study(engine, name, plain)
    except BaseException:
        engine.dispose()
        raise
    return _loaded(place, engine, name), new
