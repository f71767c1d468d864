"""Accuracy of the original on the validation split, on which all decisions are made."""

from __future__ import annotations

from typing import Any

from billhook.pipeline.training import validate
from billhook.pipeline.work import Work


def run(work: Work) -> dict[str, Any]:
    """Return the accuracy."""
    accuracy = validate(work, work.original)
    return {"accuracy": accuracy, "summary": f"{accuracy:.2%} on the validation split"}
