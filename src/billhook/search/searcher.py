"""`Searcher`: what every file in `searchers` implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from billhook.options import Configurable

if TYPE_CHECKING:
    from pathlib import Path

    from billhook.search.objective import Objective
    from billhook.search.problem import SearchProblem
    from billhook.search.session import Session


@dataclass(frozen=True)
class Searcher(Configurable, ABC):
    """Chooses what is evaluated next; a subclass is a frozen dataclass whose fields are its options.

    Attributes:
        libraries: Import names of the optional libraries that it needs; see `requirements`.
        objectives: What a study of it is about: accuracy within a budget, or loss and cost, a whole front.
    """

    libraries: ClassVar[tuple[str, ...]] = ()
    objectives: ClassVar[tuple[str, ...]] = ("accuracy",)

    def check(self, problem: SearchProblem) -> None:
        """Raise now what `run` would raise about the problem, before anything is evaluated."""

    def judge(self, problem: SearchProblem, folder: Path) -> Objective | None:
        """Return the objective that this searcher has trained in a search before; None if it trains none.

        Args:
            problem: What the search was about.
            folder: Where it kept what it trained.
        Raises:
            StorageError: if it is not there any more.
        """
        return None

    @abstractmethod
    def run(self, session: Session) -> None:
        """Evaluate candidates with `session.evaluate` until it raises `StopSearch`, or there are no more.

        What is asked for must follow from `session.seed` and from results so far: a search that was killed
        begins anew, and gets the results that the study has already without evaluating anything.
        """
