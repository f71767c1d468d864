"""Train the network without its channels before its weights become zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from billhook.graph import apply
from billhook.pipeline.stages.finetune import tuned
from billhook.pipeline.work import Work


def run(work: Work) -> dict[str, Any]:
    """Return the history; writes the weights, in full size, for the sparse method to begin with.

    Always begins at the pruned network, or at the last checkpoint of an interrupted run.
    """
    model = apply(work.decided, replace(work.plan, patterns={})).eval()
    fitted = tuned(work, model, work.recipe.settle, "settle")
    work.keep_settled(model)
    return fitted
