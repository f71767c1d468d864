"""Make the network and read the data."""

from __future__ import annotations

from typing import Any

from billhook.measure import environment
from billhook.pipeline.work import Work
from billhook.units import format_count


def run(work: Work) -> dict[str, Any]:
    """Return where the weights come from and what the original costs; writes `environment.json`."""
    subject = work.subject
    work.directory.write_json("environment.json", environment())
    cost = subject.graph.costs.cost(None)
    notes = []
    if subject.dataset is None:
        notes.append("no data was given, so accuracy was neither measured nor restored by fine-tuning")
    if subject.bundled is not None:
        notes.append(f"the original's weights were {subject.weights_from}")
    elif not subject.weights_from and not subject.trains:
        notes.append("the original network has random weights; give --weights, or train it with [train]")
    return {
        "weights": subject.weights_from,
        "weights_sha256": None if subject.trains else subject.weights_hash(),
        "inputs": subject.graph.inputs,
        "cost": cost.to_dict(),
        "notes": notes,
        "summary": f"{format_count(cost.params)} parameters, {format_count(cost.macs)} MACs",
    }
