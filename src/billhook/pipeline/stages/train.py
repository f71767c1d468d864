"""Train the original, for recipes that bring no trained weights."""

from __future__ import annotations

from typing import Any

from billhook.pipeline.training import train_network
from billhook.pipeline.work import Work


def run(work: Work) -> dict[str, Any]:
    """Return the history; writes the trained weights."""
    section = work.recipe.train
    assert section is not None
    fitted = train_network(work, work.subject.model, section, "train", teacher=None)
    work.keep_original(work.subject.model)
    return fitted
