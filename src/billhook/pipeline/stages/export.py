"""Export the original and the compressed network, each checked against PyTorch."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

from torch import nn

from billhook import deploy
from billhook.graph import capture, make_plan
from billhook.measure import backends, size
from billhook.measure.rounds import QUICK
from billhook.pipeline.work import Work
from billhook.results import Cost
from billhook.sparse.holding import holds
from billhook.units import format_bytes

_FORMS = {
    "sum": "as the sums they were, or as convolutions where channels are missing",
    "pointwise": "as 1×1 convolutions that copy channels",
    "gather": "as look-ups of channels",
    "concat": "as further inputs of the convolution before the sum",
}


def run(work: Work) -> dict[str, Any]:
    """Return the parity of both; writes `artifacts/original` and `artifacts/compressed`.

    With int8 only the latter computes in 8 bits. A network with fusions is lowered first, to what is measured
    to be fastest; its costs are those of what is exported then.

    Raises:
        ExportError: if the runtime disagrees with PyTorch.
    """
    folder = work.directory.file("artifacts")
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted run
    before, decided = work.costs
    inputs = work.subject.example_inputs
    calibration = work.subject.export_calibration()
    made = {}
    compressed, lowered, notes = _lowered(work)
    after = Cost(**lowered["after"]) if lowered else decided
    for name, model, cost in (
        ("original", work.original, before),
        ("compressed", compressed, after),
    ):
        made[name] = deploy.export(
            model,
            inputs,
            folder / name,
            backend=work.recipe.export.backend,
            preprocessing=work.subject.preprocessing,
            plan=None if name == "original" else work.plan,
            cost=cost,
            calibration=None if name == "original" else calibration,
        )
    sizes = (format_bytes(size(made[name]).value) for name in ("original", "compressed"))
    return {
        "parity": {name: dict(artifact.manifest.parity or {}) for name, artifact in made.items()},
        "notes": [
            *notes,
            *_zeros(work, made["compressed"].manifest.backend),
            *(
                []
                if calibration is None
                else ["the original computes in float32, what is compressed in int8"]
            ),
            *(f"{name}: {note}" for name, artifact in made.items() for note in artifact.manifest.notes),
        ],
        **lowered,
        "summary": " → ".join(sizes),
    }


def _lowered(work: Work) -> tuple[nn.Module, dict[str, Any], list[str]]:
    """Return the compressed network as it is exported, its costs if they are others, and what to note."""
    fusion = work.recipe.fuse.to_fusion()
    if fusion.level == "none":
        return work.compressed, {}, []
    inputs, budget = work.subject.example_inputs, work.recipe.budget
    before, _ = work.costs
    lowered = deploy.lower_by_cost(
        work.compressed,
        inputs,
        backend=work.recipe.export.backend,
        threads=work.recipe.measure.threads,
        fusion=fusion,
        timing=replace(QUICK, batch=work.recipe.measure.batch),
        fits=lambda cost: budget is None or budget.to_budget().allows(cost, before),
    )
    return lowered.network, _costs(lowered.network, work), _notes(lowered)


def _costs(network: nn.Module, work: Work) -> dict[str, Any]:
    """Return the cost of a lowered network, where patterns count if its weights have them, and its bytes."""
    graph = capture(network, work.subject.example_inputs)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    left = {n: s for n, s in work.plan.patterns.items() if shapes.get(n) == s.shape}
    left = {n: s for n, s in left.items() if holds(network, {n: s}) is None}
    whole = make_plan(graph, {})
    after = graph.costs.cost(whole.with_patterns(left)).to_dict()
    return {"after": after, **({"memory": graph.costs.cost(whole).bytes} if work.plan.patterns else {})}


def _zeros(work: Work, backend: str) -> list[str]:
    """Return what patterns are to the runtime."""
    if not work.plan.patterns or backends.get(backend).leaves_zeros_out:
        return []
    return [
        f"compressed: the exported file holds the zeros, and {backend} multiplies with them, so that latency "
        "and file size are those of the dense network; weights.safetensors, and files after gzip, are smaller"
    ]


def _notes(lowered: deploy.Lowered) -> list[str]:
    """Return what shortcuts have become that lost some of their channels, and what was measured for it."""
    notes = []
    for form in dict.fromkeys(lowered.forms.values()):
        blocks = [block for block, chosen in lowered.forms.items() if chosen == form]
        notes.append(f"lowered: the shortcuts of {', '.join(blocks)} run {_FORMS[form]}")
    if len(lowered.ratios) > 1:
        first = next(iter(lowered.ratios))
        measured = (f"{form} {ratio:.2f}" for form, ratio in lowered.ratios.items())
        notes.append(
            f"lowered: measured for shortcuts, as multiples of the time of {first}: {', '.join(measured)}"
        )
    return notes
