"""Accuracy of both exported networks on the test split: opened here, once, when nothing is left to decide."""

from __future__ import annotations

from typing import Any

from billhook.measure import accuracy
from billhook.pipeline.work import Work


def run(work: Work) -> dict[str, Any]:
    """Return the accuracy of both, in the runtime that would be shipped."""
    conditions = {"data": work.data.name, "split": "test"}
    batches = work.data.evaluation("test")
    threads = work.recipe.measure.threads
    before, after = (
        accuracy(artifact, batches, threads=threads, conditions=conditions) for artifact in work.artifacts
    )
    return {
        "before": before.to_dict(),
        "after": after.to_dict(),
        "summary": f"{before.value:.2%} → {after.value:.2%}",
    }
