"""Optuna's tables as `Study` fills them: all genes of a trial in one statement, in the caller's transaction.

Through Optuna's own interface each gene takes several statements and each attribute a transaction: 20 ms per
trial with 20 genes on SQLite, 38 ms with 60. What is written is what Optuna would write; `optuna.load_study`
and optuna-dashboard read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import IntDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import Connection, Engine, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

COMPLETE, FAIL, RUNNING = TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING
_DIRECTION = {"accuracy": StudyDirection.MAXIMIZE}  # of the others, less is better
_METRIC_NAMES = "study:metric_names"  # where Optuna keeps what the values of trials are called
_TOGETHER = 500  # ids in one query; SQLite has a limit

_STUDIES, _DIRECTIONS = models.StudyModel.__table__, models.StudyDirectionModel.__table__
_FACTS, _SYSTEM = models.StudyUserAttributeModel.__table__, models.StudySystemAttributeModel.__table__
_TRIALS, _PARAMS = models.TrialModel.__table__, models.TrialParamModel.__table__
_NOTES, _VALUES = models.TrialUserAttributeModel.__table__, models.TrialValueModel.__table__
_BEATS = models.TrialHeartbeatModel.__table__
_FINITE = models.TrialValueModel.TrialValueType.FINITE


def study_names(connection: Connection) -> list[str]:
    """Return the names of all studies."""
    return list(connection.execute(select(_STUDIES.c.study_name).order_by(_STUDIES.c.study_id)).scalars())


def find_study(connection: Connection, name: str) -> tuple[int, dict[str, Any]] | None:
    """Return the id and the facts of a study; None if there is none of that name."""
    study = connection.execute(select(_STUDIES.c.study_id).where(_STUDIES.c.study_name == name)).scalar()
    if study is None:
        return None
    rows = connection.execute(select(_FACTS.c.key, _FACTS.c.value_json).where(_FACTS.c.study_id == study))
    return int(study), {key: json.loads(text) for key, text in rows}


def add_study(engine: Engine, name: str, facts: Mapping[str, Any]) -> bool:
    """Add a study with its facts as attributes; False if there is one of that name."""
    try:
        with engine.begin() as connection:
            if (found := find_study(connection, name)) is not None:
                # Changes nothing, but shows now what could not be written after the first evaluation.
                same = update(_STUDIES).where(_STUDIES.c.study_id == found[0])
                connection.execute(same.values(study_name=name))
                return False
            study = _inserted(connection, _STUDIES, {"study_name": name})
            objectives = list(facts["objectives"])
            for i, objective in enumerate(objectives):
                direction = _DIRECTION.get(objective, StudyDirection.MINIMIZE)
                row = {"study_id": study, "objective": i, "direction": direction}
                connection.execute(insert(_DIRECTIONS).values(row))
            names = {"study_id": study, "key": _METRIC_NAMES, "value_json": json.dumps(objectives)}
            connection.execute(insert(_SYSTEM).values(names))
            rows = [{"study_id": study, "key": k, "value_json": json.dumps(v)} for k, v in facts.items()]
            _insert_many(connection, _FACTS, rows)
    except IntegrityError:  # another process was faster
        return False
    return True


class TrialTable:
    """The trials of one study.

    Args:
        study: Its id.
        sizes: Name of each gene, and how many values it has.
    """

    def __init__(self, study: int, sizes: Mapping[str, int]) -> None:
        self.study = study
        self._genes = {n: distribution_to_json(IntDistribution(0, size - 1)) for n, size in sizes.items()}

    def lock(self, connection: Connection) -> None:
        """Let no other transaction add or end trials until this one is over; ids rise in order of commits."""
        connection.execute(
            select(_STUDIES.c.study_id).where(_STUDIES.c.study_id == self.study).with_for_update()
        )

    def states(self, connection: Connection, after: int, also: Iterable[int]) -> list[tuple[int, TrialState]]:
        """Return id and state of the trials behind `after`, and of `also`; rising."""
        wanted = or_(_TRIALS.c.trial_id > after, _TRIALS.c.trial_id.in_(sorted(also)))
        query = select(_TRIALS.c.trial_id, _TRIALS.c.state).where(_TRIALS.c.study_id == self.study, wanted)
        return [(row[0], row[1]) for row in connection.execute(query.order_by(_TRIALS.c.trial_id))]

    def attributes(self, connection: Connection, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Return the attributes of trials."""
        found: dict[int, dict[str, Any]] = {i: {} for i in ids}
        for start in range(0, len(ids), _TOGETHER):
            some = ids[start : start + _TOGETHER]
            query = select(_NOTES.c.trial_id, _NOTES.c.key, _NOTES.c.value_json)
            for trial, key, text in connection.execute(query.where(_NOTES.c.trial_id.in_(some))):
                found[trial][key] = json.loads(text)
        return found

    def insert(
        self, connection: Connection, order: int, genes: Sequence[int], attributes: Mapping[str, Any]
    ) -> int:
        """Add a running trial and return its id; `order` is Optuna's number, that of trials before it."""
        row = {"study_id": self.study, "number": order, "state": RUNNING, "datetime_start": _utc()}
        trial = _inserted(connection, _TRIALS, row)
        params = [
            {"trial_id": trial, "param_name": name, "param_value": float(gene), "distribution_json": text}
            for (name, text), gene in zip(self._genes.items(), genes, strict=True)
        ]
        _insert_many(connection, _PARAMS, params)
        self._note(connection, trial, attributes)
        connection.execute(insert(_BEATS).values(trial_id=trial, heartbeat=_now(connection)))
        return trial

    def end(
        self,
        connection: Connection,
        trial: int,
        state: TrialState,
        attributes: Mapping[str, Any],
        values: Sequence[float] = (),
    ) -> None:
        """Make a running trial a finished one."""
        ended = {"state": state, "datetime_complete": _utc()}
        connection.execute(update(_TRIALS).where(_TRIALS.c.trial_id == trial).values(ended))
        rows = [
            {"trial_id": trial, "objective": i, "value": value, "value_type": _FINITE}
            for i, value in enumerate(values)
        ]
        _insert_many(connection, _VALUES, rows)
        self._note(connection, trial, attributes)

    def beat(self, connection: Connection, trials: Iterable[int]) -> None:
        """Note that the owner of running trials is alive."""
        change = update(_BEATS).where(_BEATS.c.trial_id.in_(sorted(trials)))
        connection.execute(change.values(heartbeat=_now(connection)))

    def silence(self, connection: Connection, trial: int) -> float:
        """Return for how many seconds the owner of a running trial has not been heard of.

        By the clock of the data base: those of several machines may differ.
        """
        query = select(_BEATS.c.heartbeat, _now(connection)).where(_BEATS.c.trial_id == trial)
        row = connection.execute(query).first()
        return float("inf") if row is None else float((row[1] - row[0]).total_seconds())

    def _note(self, connection: Connection, trial: int, attributes: Mapping[str, Any]) -> None:
        rows = [{"trial_id": trial, "key": k, "value_json": json.dumps(v)} for k, v in attributes.items()]
        _insert_many(connection, _NOTES, rows)


def _inserted(connection: Connection, table: Any, row: Mapping[str, Any]) -> int:
    """Insert one row and return its id."""
    key = connection.execute(insert(table).values(row)).inserted_primary_key
    assert key is not None  # all tables have one
    return int(key[0])


def _insert_many(connection: Connection, table: Any, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(insert(table), rows)
    else:  # one statement, one answer: a server may be far away
        connection.execute(insert(table).values(rows))


def _now(connection: Connection) -> Any:
    """Return the time of the data base, UTC without time zone, as the column of heartbeats has it."""
    if connection.dialect.name == "postgresql":
        return func.timezone("UTC", func.clock_timestamp(), type_=_BEATS.c.heartbeat.type)
    return func.current_timestamp()


def _utc() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
