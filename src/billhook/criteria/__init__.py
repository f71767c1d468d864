"""Criteria: how much each unit of a channel group matters.

One file is one criterion. `score` is the way to use them; `criteria` lists them by name. The
package itself imports no torch, so that names can be checked and completed quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from billhook.registry import Registry

if TYPE_CHECKING:
    from billhook.criteria._base import Calibration, Criterion, ScoreContext
    from billhook.criteria._score import score

__all__ = ["Calibration", "Criterion", "ScoreContext", "criteria", "score"]

criteria: Registry[type[Criterion]] = Registry("criterion", "billhook.criteria")


def __getattr__(name: str) -> Any:
    if name in ("Calibration", "Criterion", "ScoreContext"):
        from billhook.criteria import _base

        return getattr(_base, name)
    if name == "score":
        from billhook.criteria._score import score

        return score
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
