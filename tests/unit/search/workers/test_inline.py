from __future__ import annotations

import os

from billhook.errors import BudgetError
from billhook.search.workers import open_workers
from tests.unit.search.workers.objectives import Broken, Offset, Sum, judged


def test_candidates_are_judged_in_this_process_in_turn() -> None:
    with open_workers() as workers:
        workers.use(Sum())
        found = judged(workers, [[1, 2], [3, 4]])
        assert workers.size == 1
        assert not workers.wait(0.0)
    assert [(found[n].accuracy, found[n].loss) for n in (0, 1)] == [(0.3, os.getpid()), (0.7, os.getpid())]


def test_another_objective_takes_over() -> None:
    with open_workers() as workers:
        workers.use(Offset(1.0))
        assert judged(workers, [[0]])[0].accuracy == 1.0
        workers.use(Offset(5.0))
        assert judged(workers, [[0]])[0].accuracy == 5.0


def test_errors_come_back_and_keep_their_cause() -> None:
    with open_workers() as workers:
        workers.use(Broken())
        found = judged(workers, [[0], [1]])
    assert isinstance(found[1], BudgetError)
    assert isinstance(found[0].__cause__, ZeroDivisionError)
    assert "trial 0 could not be evaluated: ZeroDivisionError: no images (" in str(found[0])
    assert "objectives.py:" in str(found[0])
