"""Carry the plan out, and prove on the example inputs that removing equals silencing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from billhook.errors import VerifyError
from billhook.graph import verify
from billhook.pipeline.training import validate
from billhook.pipeline.work import Work


def run(work: Work) -> dict[str, Any]:
    """Return the outcome of the check and the accuracy before any repair; writes the smaller weights.

    Raises:
        VerifyError: if the smaller network is not equal to the silenced one; names the layer.
    """
    check = (
        verify(work.original, work.plan, work.subject.example_inputs) if work.recipe.prune.verify else None
    )
    if check is not None and not check.agrees:
        raise VerifyError(
            f"the smaller network differs from the silenced one by {check.max_rel_error:.2g} of the largest "
            f"output (allowed: {check.tolerance:.2g}), first at layer {check.first_difference!r}; "
            f"exclude it with --exclude {check.first_difference!r}, and please report it"
        )
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
