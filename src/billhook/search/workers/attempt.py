"""One attempt to evaluate a candidate: what it gives, and how often its worker may die of it."""

from __future__ import annotations

import traceback
from collections import Counter
from typing import TYPE_CHECKING

from billhook.errors import BillhookError

if TYPE_CHECKING:
    from billhook.search.objective import Evaluation, Objective
    from billhook.search.space import Genes

DEATHS = 3
"""Workers that may die over one candidate."""


def attempt(objective: Objective, number: int, genes: Genes) -> Evaluation | BillhookError:
    """Return what a candidate is worth, or why that could not be found out."""
    try:
        return objective.evaluate(genes)
    except Exception as error:
        return as_error(number, error)


def as_error(number: int, error: BaseException) -> BillhookError:
    """Return an error of an evaluation as one that billhook raises; says where it came from."""
    if isinstance(error, BillhookError):
        return error
    what = traceback.format_exception_only(error)[-1].strip()
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    failure = BillhookError(f"trial {number} could not be evaluated: {what}{where}")
    failure.__cause__ = error
    return failure


class Deaths:
    """Counts the workers that died over each candidate."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def count(self, number: int, cause: str) -> BillhookError | None:
        """Note one; returns an error once it was one too many.

        Args:
            number: Of the candidate.
            cause: How the worker ended, e.g. "killed by signal 9".
        """
        self._counts[number] += 1
        if self._counts[number] < DEATHS:
            return None
        return BillhookError(
            f"trial {number} could not be evaluated: {DEATHS} workers died over it, the last one {cause}. "
            "Was the memory used up? Try fewer workers or images"
        )

    def forget(self, number: int) -> None:
        """Note that a candidate has been evaluated."""
        self._counts.pop(number, None)
