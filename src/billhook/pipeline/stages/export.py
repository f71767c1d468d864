"""Export the original and the compressed network, each checked against PyTorch."""

from __future__ import annotations

import shutil
from typing import Any

from billhook import deploy
from billhook.measure import size
from billhook.pipeline.work import Work
from billhook.results import Cost
from billhook.units import format_bytes


def run(work: Work) -> dict[str, Any]:
    """Return the parity of both; writes `artifacts/original` and `artifacts/compressed`.

    Raises:
        ExportError: if the runtime disagrees with PyTorch.
    """
    folder = work.directory.file("artifacts")
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted run
    costs = work.outcome("decide")
    inputs = work.subject.example_inputs
    made = {}
    for name, model, cost in (
        ("original", work.original, "before"),
        ("compressed", work.compressed, "after"),
    ):
        made[name] = deploy.export(
            model,
            inputs,
            folder / name,
            backend=work.recipe.export.backend,
            preprocessing=work.subject.preprocessing,
            plan=None if name == "original" else work.plan,
            cost=Cost(**costs[cost]),
        )
    before, after = (format_bytes(size(made[name]).value) for name in ("original", "compressed"))
    return {
        "parity": {name: dict(artifact.manifest.parity or {}) for name, artifact in made.items()},
        "notes": [f"{name}: {note}" for name, artifact in made.items() for note in artifact.manifest.notes],
        "summary": f"{before} → {after}",
    }
