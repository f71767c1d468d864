"""The options that several commands share, and how their texts become values."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from billhook.cli.guard import remember_debug, remember_quiet
from billhook.errors import InputError

if TYPE_CHECKING:
    from billhook.recipe import Change

Input = Annotated[
    list[str],
    typer.Option(
        "--input",
        metavar="SHAPE",
        help="Shape of an input, e.g. 1x3x224x224, 1x16:int64, mask=1x16:bool. Repeat for several.",
    ),
]
ModelArg = Annotated[
    list[str],
    typer.Option(
        "--model-arg",
        metavar="KEY=VALUE",
        help="Argument of the model's callable. Repeat for several.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Trained weights: .safetensors, or .pth (read with weights_only).",
    ),
]
Include = Annotated[
    list[str],
    typer.Option(
        metavar="PATTERN",
        help="Only touch channel groups, layers or tensors of this name (* and ? match); without a budget: "
        "weights. Repeat for several.",
    ),
]
Exclude = Annotated[
    list[str],
    typer.Option(
        metavar="PATTERN",
        help="Leave channel groups, layers or tensors of this name alone; without a budget: weights. "
        "Repeat for several.",
    ),
]
Mixing = Annotated[
    str | None,
    typer.Option(
        metavar="freeze|allow",
        help="Channels that pass through layer norms and the like: keep them, or let them leave.",
        show_default="freeze",
    ),
]
Fuse = Annotated[
    str | None,
    typer.Option(
        "--fuse",
        metavar="LEVEL",
        help="Equivalent rewrites: aggressive makes shortcuts prunable and lets blocks of a stage differ; "
        "conservative folds parameters only.",
        show_default="none",
    ),
]
FuseOption = Annotated[
    list[str],
    typer.Option(
        "--fuse-option",
        metavar="KEY=VALUE",
        help="operators, include, exclude, add_form, copies or keep_if of [fuse]. Repeat for several.",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="float32|int8",
        help="What the runtime computes in; int8 needs --data.",
        show_default="float32",
    ),
]
CalibrationMethod = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="METHOD",
        help="How ranges are found for int8: mse, percentile or minmax.",
        show_default="mse",
    ),
]
CalibrationImages = Annotated[
    int | None,
    typer.Option(
        "--calibration-images",
        metavar="N",
        help="Training images that ranges are found on for int8.",
        show_default="512",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Write JSON on stdout, nothing else.",
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress.", callback=remember_quiet, is_eager=True)
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        help="On an error, show where in the code it came from.",
        callback=remember_debug,
        is_eager=True,
    ),
]


Given = Mapping[tuple[str, ...], tuple[str, Any]]


def changes(given: Given) -> list[Change]:
    """Return what was given on the command line as changes of a recipe; what was left out changes nothing.

    Args:
        given: Where in the recipe → name of the option and its value, None or [] if it was left out.
    """
    from billhook.recipe import Change

    return [
        Change(path, str(value) if isinstance(value, Path) else value, option)
        for path, (option, value) in given.items()
        if value is not None and value != []
    ]


def network(inputs: list[str], model_arg: list[str], weights: Path | None, data: str | None) -> Given:
    """Return what the options say that every command with a MODEL has; for `changes`."""
    return {
        ("model", "input"): ("--input", inputs),
        **key_values(("model", "args"), "--model-arg", model_arg),
        ("model", "weights"): ("--weights", weights),
        ("data", "name"): ("--data", data),
    }


def bounds(texts: list[str]) -> dict[str, str]:
    """Return {"latency": "0.5"} for ["latency=0.5"]; raises `InputError` for what has no "="."""
    found: dict[str, str] = {}
    for text in ",".join(texts).split(","):
        metric, equals, bound = (part.strip() for part in text.partition("="))
        if not equals and text.strip():
            raise InputError(f"--budget {text!r}: write METRIC=BOUND, e.g. latency=0.5")
        if metric:
            found[metric] = bound
    return found


def number_or_word(text: str | None) -> float | str | None:
    """Return the number in `text`, else `text` itself, which the recipe will judge."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def precision(wanted: str | None, method: str | None, images: int | None) -> Given:
    """Return what --precision, --calibration and --calibration-images say; for `changes`."""
    return {
        ("export", "precision"): ("--precision", wanted),
        ("export", "calibration"): ("--calibration", method),
        ("export", "calibration_images"): ("--calibration-images", images),
    }


def fusion(level: str | None, options: list[str]) -> Given:
    """Return what --fuse and --fuse-option say; for `changes`."""
    return {("fuse", "level"): ("--fuse", level), **key_values(("fuse",), "--fuse-option", options)}


def key_values(
    table: tuple[str, ...], option: str, texts: list[str]
) -> dict[tuple[str, ...], tuple[str, Any]]:
    """Return {(*table, "width"): (option, 16)} for ["width=16"].

    Values are read as TOML, and as text if they are not TOML.

    Raises:
        InputError: if one has no "=".
    """
    values: dict[tuple[str, ...], tuple[str, Any]] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key:
            raise InputError(f"{option} {text!r}: write KEY=VALUE")
        values[(*table, key)] = f"{option} {key}", _value(value)
    return values


def _value(text: str) -> Any:
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return read["value"] if len(read) == 1 else text
