"""`billhook compile`: a network for billhook's engine, with the library or the C sources that run it."""

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

_Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL|RECIPE.toml",
        help="A name from `billhook methods`, package.module:callable, path/file.py:callable, or a recipe.",
        show_default=False,
    ),
]
_Output = Annotated[Path, typer.Option("--out", "--output", "-o", metavar="DIR", help="New folder.")]
_Target = Annotated[
    str,
    typer.Option(
        metavar="TARGET",
        help="What runs it: native (this processor family), x86-64-v3, x86-64-v4, aarch64, or c for sources.",
    ),
]
_Data = Annotated[
    str | None, typer.Option("--data", metavar="NAME", help="Data set whose images are the inputs.")
]


def compile_network(
    model: _Model,
    output: _Output,
    target: _Target = "native",
    inputs: Input = [],  # noqa: B006 (typer copies it)
    model_arg: ModelArg = [],  # noqa: B006
    weights: Weights = None,
    data: _Data = None,
    precision: Precision = None,
    calibration: CalibrationMethod = None,
    calibration_images: CalibrationImages = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compile a network for billhook's engine, and prove that it agrees with PyTorch."""
    from billhook.compile.library import HEADER, LIBRARY
    from billhook.deploy import compile_for
    from billhook.pipeline import Subject
    from billhook.recipe import from_target
    from billhook.units import format_bytes

    terminal = Terminal(as_json, quiet)
    given = changes(
        {
            **network(inputs, model_arg, weights, data),
            **in_precision(precision, calibration, calibration_images),
        }
    )
    subject = Subject(from_target(model, given))
    artifact = compile_for(
        subject.model,
        subject.example_inputs,
        output,
        target=target,
        preprocessing=subject.preprocessing,
        calibration=subject.export_calibration(),
    )
    for note in artifact.manifest.notes if artifact.manifest.precision == "int8" else ():
        terminal.warn(note)
    files = {
        str(path.relative_to(output)): path.stat().st_size
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }
    model_bytes = artifact.model_path.stat().st_size
    terminal.data(
        {
            "target": target,
            "precision": artifact.manifest.precision,
            "directory": str(output),
            "artifact": str(artifact.directory),
            "files": files,
            "bytes": sum(files.values()),
            "parity": dict(artifact.manifest.parity or {}),
        },
        f"{artifact.model_path}: {format_bytes(model_bytes)}, for {target}",
        f"build it: cmake -S {output} -B build && cmake --build build"
        if target == "c"
        else f"beside it: {LIBRARY} and {HEADER.name}, the engine",
    )
