"""Which trials can be compared, and how one is written down."""

from __future__ import annotations

import json
from dataclasses import replace

from billhook.search.studies.trial import Trial, comparable, most_accurate, ranked

TRIAL = Trial(0, (1, 2), 0.5, 0.7, {"macs": 10.0}, notes={"generation": 0})


def _keys(*runs: tuple[str, int]) -> list[Trial]:
    return [replace(TRIAL, key=key) for key, count in runs for _ in range(count)]


def test_trials_of_one_key_are_all_comparable() -> None:
    assert comparable([]) == []
    assert len(comparable(_keys(("a", 3)))) == 3


def test_the_last_key_that_many_trials_have_counts() -> None:
    assert {t.key for t in comparable(_keys(("a", 8), ("b", 8)))} == {"b"}
    assert {t.key for t in comparable(_keys(("a", 8), ("b", 8), ("c", 3)))} == {"b"}
    assert {t.key for t in comparable(_keys(("a", 8), ("b", 8), ("c", 4)))} == {"c"}


def test_the_most_accurate_come_first_and_each_candidate_once() -> None:
    trials = [
        replace(TRIAL, number=0, accuracy=0.5),
        replace(TRIAL, number=1, accuracy=0.9, genes=(3, 3), costs={"macs": 30.0}),
        replace(TRIAL, number=2, accuracy=0.7, genes=(2, 2)),
        replace(TRIAL, number=3, accuracy=0.7, genes=(2, 1), loss=0.6),
        replace(TRIAL, number=4, accuracy=0.7, genes=(2, 2)),
    ]
    assert [t.number for t in ranked(trials, {"macs": 20.0})] == [3, 2, 0]
    assert most_accurate(trials, {"macs": 20.0}) == trials[3]
    assert most_accurate(trials, {}) == trials[1]
    assert most_accurate(trials, {"macs": 5.0}) is None


def test_a_trial_is_plain_data() -> None:
    assert json.loads(json.dumps(TRIAL.to_dict()))["genes"] == [1, 2]
    assert TRIAL.finite
    assert not replace(TRIAL, loss=float("nan")).finite
