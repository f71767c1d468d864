"""`billhook export`: a network for a runtime, as it is, checked against PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from billhook.cli.options import (
    CalibrationImages,
    CalibrationMethod,
    Debug,
    Input,
    Json,
    ModelArg,
    Precision,
    Quiet,
    Weights,
    changes,
    network,
)
from billhook.cli.options import precision as in_precision
from billhook.cli.terminal import Terminal

_Target = Annotated[
    str,
    typer.Argument(
        metavar="MODEL|RECIPE.toml",
        help="A name from `billhook methods`, package.module:callable, path/file.py:callable, or a recipe.",
        show_default=False,
    ),
]
_Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="New folder for the artifact.")]
_Data = Annotated[
    str | None, typer.Option("--data", metavar="NAME", help="Data set whose images are the inputs.")
]
_Backend = Annotated[str | None, typer.Option("--backend", metavar="NAME", help="Runtime to export for.")]


def export(
    target: _Target,
    output: _Output,
    inputs: Input = [],  # noqa: B006 (typer copies it)
    model_arg: ModelArg = [],  # noqa: B006
    weights: Weights = None,
    data: _Data = None,
    backend: _Backend = None,
    precision: Precision = None,
    calibration: CalibrationMethod = None,
    calibration_images: CalibrationImages = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Export a network as it is, and prove that the runtime agrees with PyTorch."""
    from billhook import deploy
    from billhook.measure import size
    from billhook.pipeline import Subject
    from billhook.recipe import from_target
    from billhook.units import format_bytes

    terminal = Terminal(as_json, quiet)
    given = changes(
        {
            **network(inputs, model_arg, weights, data),
            ("export", "backend"): ("--backend", backend),
            **in_precision(precision, calibration, calibration_images),
        }
    )
    recipe = from_target(target, given)
    subject = Subject(recipe)
    artifact = deploy.export(
        subject.model,
        subject.example_inputs,
        output,
        backend=recipe.export.backend,
        preprocessing=subject.preprocessing,
        calibration=subject.export_calibration(),
    )
    manifest = artifact.manifest
    for note in manifest.notes:
        terminal.warn(note)
    terminal.data(
        {
            "artifact": str(output),
            "backend": manifest.backend,
            "precision": manifest.precision,
            "opset": manifest.opset,
            "bytes": size(artifact).value,
            "parity": dict(manifest.parity or {}),
        },
        f"{artifact.model_path}: {format_bytes(size(artifact).value)}"
        + ("" if manifest.opset is None else f", opset {manifest.opset}"),
    )
