"""`InlineWorkers`: candidates are evaluated in this process; the fastest way for one worker."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from billhook.search.workers.attempt import attempt

if TYPE_CHECKING:
    from billhook.search.objective import Objective
    from billhook.search.space import Genes
    from billhook.search.workers import Outcome


class InlineWorkers:
    """This process; see `Workers`."""

    size = 1

    def __init__(self) -> None:
        self._objective: Objective | None = None
        self._waiting: deque[tuple[int, Genes]] = deque()

    def use(self, objective: Objective) -> None:
        """Judge by `objective` from now on."""
        self._objective = objective

    def submit(self, number: int, genes: Genes) -> None:
        """Hand in a candidate; it is evaluated in `wait`."""
        self._waiting.append((number, genes))

    def wait(self, timeout: float | None = None) -> list[tuple[int, Outcome]]:
        """Evaluate one candidate, for as long as it takes."""
        if not self._waiting:
            return []
        assert self._objective is not None, "use() comes before submit()"
        number, genes = self._waiting.popleft()
        return [(number, attempt(self._objective, number, genes))]

    def __enter__(self) -> InlineWorkers:
        return self

    def __exit__(self, *exc: object) -> None:
        self._waiting.clear()
