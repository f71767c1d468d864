"""Carry the plan out, and prove on the example inputs that removing equals silencing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from billhook.graph import verify
from billhook.graph.verify import disagreement
from billhook.pipeline.training import validate
from billhook.pipeline.work import Work


def run(work: Work) -> dict[str, Any]:
    """Return the outcome of the check and the accuracy before any repair; writes the smaller weights.

    Raises:
        VerifyError: if the smaller network is not equal to the silenced one; names the layer.
    """
    inputs = work.subject.example_inputs
    check = verify(work.decided, work.plan, inputs) if work.recipe.prune.verify else None
    if check is not None and not check.agrees:
        raise disagreement(check, work.decided, inputs, exclude=f"--exclude {check.first_difference!r}")
    model = work.pruned()
    work.keep_compressed(model)
    accuracy = validate(work, model) if work.recipe.data is not None else None
    words = ["verified" if check is not None else "not verified"]
    if accuracy is not None:
        words.append(f"{accuracy:.2%} on the validation split before any training")
    return {
        "check": None if check is None else asdict(check),
        "accuracy": accuracy,
        "summary": ", ".join(words),
    }
