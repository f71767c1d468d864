"""`TrialLog`: what a process knows of the trials of a study; it only reads what is new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from billhook.errors import StorageError
from billhook.search.studies.owner import Owner
from billhook.search.studies.trial import Trial
from billhook.search.studies.trial_table import COMPLETE, TrialTable

SILENT = 60.0
"""Seconds without a sign of life after which a claim may be taken over."""
_LONG = 3  # or after this many times the longest evaluation so far, if that is more


class TrialLog:
    """The trials of a study, as far as they have been read.

    Attributes:
        finished: By number; of several with the same number, the first.
        running: Optuna's id → number and owner.
        count: How many trials there are, failed ones too.
    """

    def __init__(self, table: TrialTable, study: str) -> None:
        self.finished: dict[int, Trial] = {}
        self.running: dict[int, tuple[int, Owner]] = {}
        self.count = 0
        self._table, self._study = table, study
        self._open: set[int] = set()
        self._last = -1
        self._longest = 0.0

    def read(self, connection: Connection) -> None:
        """Read what others have written since the last time."""
        states = self._table.states(connection, self._last, self._open)
        new = [trial for trial, _ in states if trial > self._last]
        ended = [trial for trial, state in states if state is COMPLETE]
        begun = [trial for trial, state in states if trial > self._last and not state.is_finished()]
        attributes = self._table.attributes(connection, [*ended, *begun])
        for trial, state in states:
            if state.is_finished():
                self.forget(trial)
        for trial in ended:
            self._note_finished(attributes[trial])
        for trial in begun:
            self._open.add(trial)
            owner, number = Owner.of(attributes[trial].get("owner")), attributes[trial].get("number")
            if owner is not None and isinstance(number, int):
                self.running[trial] = number, owner
        self.count += len(new)
        self._last = max([self._last, *new])

    def begin(self, trial: int, number: int, owner: Owner) -> None:
        """Note a running trial that this process has added behind all that were read."""
        self._last = trial
        self.count += 1
        self._open.add(trial)
        self.running[trial] = number, owner

    def forget(self, trial: int) -> None:
        """Note that a running trial has ended."""
        self._open.discard(trial)
        self.running.pop(trial, None)

    def rivals(self, number: int) -> list[int]:
        """Return the running trials of a number."""
        return [trial for trial, (n, _) in self.running.items() if n == number]

    def alive(self, connection: Connection, trial: int) -> bool:
        """Tell if a running trial has an owner that is at work."""
        if self.running[trial][1].dead:
            return False
        return self._table.silence(connection, trial) <= max(SILENT, _LONG * self._longest)

    def end(self, trial: int, attributes: Mapping[str, Any]) -> None:
        """Note that a trial of this process has finished, with the attributes that were written."""
        self.forget(trial)
        self._note_finished(attributes)

    def _note_finished(self, attributes: Mapping[str, Any]) -> None:
        if "number" not in attributes:
            return  # somebody has added a trial by other means
        trial = _trial(attributes, self._study)
        self.finished.setdefault(trial.number, trial)
        self._longest = max(self._longest, trial.seconds)


def _trial(attributes: Mapping[str, Any], study: str) -> Trial:
    try:
        return Trial(
            int(attributes["number"]),
            tuple(int(g) for g in attributes["genes"]),
            float(attributes["accuracy"]),
            float(attributes["loss"]),
            {str(metric): float(cost) for metric, cost in attributes["costs"].items()},
            float(attributes["seconds"]),
            str(attributes["key"]),
            bool(attributes["cached"]),
            dict(attributes["notes"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise StorageError(f"{study}: trial {attributes['number']} cannot be read ({e!r})") from None
