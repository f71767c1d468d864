"""Who evaluates candidates: this process, processes of this machine, or a Ray cluster. Same interface."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from billhook.errors import InputError

if TYPE_CHECKING:
    from billhook.errors import BillhookError
    from billhook.search.objective import Evaluation, Objective
    from billhook.search.space import Genes

    Outcome = Evaluation | BillhookError


class Workers(Protocol):
    """Evaluates candidates; a context manager that ends what it has started.

    Attributes:
        size: How many candidates are evaluated side by side.
    """

    size: int

    def use(self, objective: Objective) -> None:
        """Judge what is submitted from now on by `objective`; nothing may be on its way."""

    def submit(self, number: int, genes: Genes) -> None:
        """Hand in a candidate; more than `size` of them wait for their turn."""

    def wait(self, timeout: float | None = None) -> list[tuple[int, Outcome]]:
        """Return what was found since the last call, with its number, as soon as there is something.

        An evaluation that raises gives its error instead. A worker that dies is replaced and its candidate
        evaluated again, a few times. Inline, this call evaluates one candidate.

        Args:
            timeout: Seconds after which it returns with nothing; None: never.
        """

    def __enter__(self) -> Workers: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_workers(workers: int = 1, ray: str | None = None) -> Workers:
    """Return workers to be used in a `with` block.

    Args:
        workers: How many; one without Ray is this process itself.
        ray: Address of a Ray cluster, see `ray_.RayWorkers`; None: this machine, without Ray.
    Raises:
        InputError: if there would be none.
        MissingExtraError: if Ray is wanted and not installed.
    """
    if workers < 1:
        raise InputError(f"workers={workers} must be at least 1")
    if ray is not None:
        from billhook.search.requirements import require

        require("ray", what="a search on a Ray cluster")
        from billhook.search.workers.ray_ import RayWorkers

        return RayWorkers(workers, ray)
    if workers > 1:
        from billhook.search.workers.local import LocalWorkers

        return LocalWorkers(workers)
    from billhook.search.workers.inline import InlineWorkers

    return InlineWorkers()
