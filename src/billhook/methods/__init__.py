"""Methods: published algorithms that turn a problem into a plan. One file is one method.

A criterion's name works wherever a method's name does: it stands for one-shot pruning with that criterion.
The package itself imports no torch, so that names can be checked and completed quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from billhook.criteria import criteria
from billhook.registry import Registry

if TYPE_CHECKING:
    from billhook.methods._base import Method, Outcome, Problem
    from billhook.methods._capabilities import Capability, capabilities
    from billhook.methods._prune import prune, pruning_callback, shrink
    from billhook.methods._training import MethodCallback, TrainingMethod

__all__ = [
    "Capability",
    "Method",
    "MethodCallback",
    "Outcome",
    "Problem",
    "TrainingMethod",
    "capabilities",
    "methods",
    "names",
    "prune",
    "pruning_callback",
    "shrink",
]

methods: Registry[type[Method]] = Registry("method", "billhook.methods")

_HOMES = {
    "Capability": "_capabilities",
    "Method": "_base",
    "MethodCallback": "_training",
    "Outcome": "_base",
    "Problem": "_base",
    "TrainingMethod": "_training",
    "capabilities": "_capabilities",
    "prune": "_prune",
    "pruning_callback": "_prune",
    "shrink": "_prune",
}


def names() -> list[str]:
    """Return everything that `prune(method=…)` takes: methods and criteria, without importing them."""
    return sorted({*methods.names(), *criteria.names()})


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"billhook.methods.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
