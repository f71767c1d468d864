"""Fine-tune the smaller network, with the original as its teacher."""

from __future__ import annotations

from typing import Any

from billhook.pipeline.training import train_network
from billhook.pipeline.work import Work


def run(work: Work) -> dict[str, Any]:
    """Return the history; writes the trained weights.

    Always begins at the pruned network, or at the last checkpoint of an interrupted session.
    """
    section = work.recipe.finetune
    model = work.pruned()
    fitted = train_network(
        work, model, section, "finetune", teacher=work.original if section.distill else None
    )
    work.keep_compressed(model)
    return fitted
