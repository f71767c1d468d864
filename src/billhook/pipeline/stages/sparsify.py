"""Make weights zero or equal in the channels that are left, and prove that the plan says which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from billhook.graph import verify
from billhook.graph.verify import disagreement
from billhook.pipeline.deciding import layer_changes
from billhook.pipeline.sparsifying import sparsify_network, total
from billhook.pipeline.training import validate
from billhook.pipeline.work import Work
from billhook.run_record import save_layers
from billhook.units import format_count


def run(work: Work) -> dict[str, Any]:
    """Return costs, accuracy and how many weights are left; writes plan, layers and sparse weights.

    Always begins at the network of the stage `decide`, or at the last checkpoint of an interrupted run.

    Raises:
        VerifyError: if the sparse network is not equal to the original with the same weights at zero.
    """
    # An interrupted run may have left a plan with patterns; what channels leave was decided before.
    base = replace(work.plan, patterns={}, made_by=work.outcome("decide")["made_by"])
    checkpoints = work.directory.file("checkpoints/sparsify")
    made = sparsify_network(work.subject, work.decided, base, checkpoints, bars=work.bars)
    inputs, plan, network = work.subject.example_inputs, made.plan, made.network.eval()
    check = verify(work.decided, plan, inputs) if work.recipe.prune.verify else None
    if check is not None and not check.agrees:
        raise disagreement(
            check, work.decided, inputs, exclude=f"--sparse-exclude {check.first_difference!r}"
        )
    work.keep_sparse(network, plan)
    graph = work.subject.prunable_graph
    save_layers(work.directory.path, layer_changes(work.subject.prunable, graph, plan))
    weights = total(plan.patterns)
    accuracy = validate(work, network) if work.recipe.data is not None else None
    words = [f"{made.weight_sparsity:.1%} of {format_count(weights['weights'])} weights are zero"]
    if accuracy is not None:
        words.append(f"{accuracy:.2%} on the validation split")
    return {
        "after": graph.costs.cost(plan).to_dict(),
        "memory": graph.costs.cost(base).bytes,  # a runtime keeps the zeros
        "weights": weights,
        "check": None if check is None else asdict(check),
        "accuracy": accuracy,
        "history": [record.to_dict() for record in made.history],
        "log": [dict(entry) for entry in made.log],
        "made_by": dict(plan.made_by),
        "notes": _notes(work.recipe.sparse.method, made.log),
        "summary": ", ".join(words),
    }


def _notes(method: str, log: Sequence[Mapping[str, float]]) -> list[str]:
    """Return how near the weights came to their patterns before they were given them, if that is known."""
    distances = [entry["primal"] for entry in log if "primal" in entry]
    if not distances:
        return []
    return [
        f"{method}: the largest relative distance of a weight to its pattern went from {distances[0]:.3g} to "
        f"{distances[-1]:.3g} in {len(distances)} rounds"
    ]
