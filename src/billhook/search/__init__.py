"""Search for the widths and densities that meet a budget: AMC, AGMC, MetaPruning, JCW, and baselines.

`searchers` lists them by name. The package itself imports neither torch nor an optional library, so that
names can be checked and completed quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# The folder before the registry of the same name: loaded later, it would take the registry's place.
import billhook.search.searchers  # noqa: F401
from billhook.registry import Registry

if TYPE_CHECKING:
    from billhook.search.costs import SearchCosts
    from billhook.search.driver import SearchResult, search
    from billhook.search.objective import Evaluation, InheritedWeights, Objective
    from billhook.search.problem import SearchProblem
    from billhook.search.searcher import Searcher
    from billhook.search.session import Session
    from billhook.search.space import Gene, Space
    from billhook.search.studies.study import Study
    from billhook.search.studies.trial import Trial

__all__ = [
    "Evaluation",
    "Gene",
    "InheritedWeights",
    "Objective",
    "SearchCosts",
    "SearchProblem",
    "SearchResult",
    "Searcher",
    "Session",
    "Space",
    "Study",
    "Trial",
    "search",
    "searchers",
]

searchers: Registry[type[Searcher]] = Registry("searcher", "billhook.search.searchers")
"""`Searcher`: a way to choose what is evaluated next."""

_HOMES = {
    "Evaluation": "objective",
    "Gene": "space",
    "InheritedWeights": "objective",
    "Objective": "objective",
    "SearchCosts": "costs",
    "SearchProblem": "problem",
    "SearchResult": "driver",
    "Searcher": "searcher",
    "Session": "session",
    "Space": "space",
    "Study": "studies.study",
    "Trial": "studies.trial",
    "search": "driver",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"billhook.search.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
