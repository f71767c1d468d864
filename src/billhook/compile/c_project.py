"""A compiled network as C sources: a folder that any C compiler turns into a program without billhook."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from math import prod
from pathlib import Path
from string import Template

from billhook.compile.library import ENGINE
from billhook.compile.session import EnginePort

MODEL_FOLDER = "model"
_PROJECT = Path(__file__).parent / "project"
_FILLED = ("network.h", "README.md")  # in which $names stand; the others are copied
_NOT_SOURCES = ("fuzz", "*.so", "__pycache__")


def write_project(
    directory: Path, inputs: Sequence[EnginePort], outputs: Sequence[EnginePort], version: str
) -> None:
    """Write everything of a C project but the network, which belongs at model/model.bhk.

    Args:
        directory: Existing folder.
        inputs: Of the network, in the order of the model file.
        outputs: The same.
        version: Of billhook; stands in what is written.
    """
    shutil.copytree(ENGINE, directory / "engine", ignore=shutil.ignore_patterns(*_NOT_SOURCES))
    values = {"version": version, **_ports("input", inputs), **_ports("output", outputs)}
    for source in sorted(_PROJECT.iterdir()):
        text = source.read_text(encoding="utf-8")
        if source.name in _FILLED:
            text = Template(text).substitute(values)
        (directory / source.name).write_text(text, encoding="utf-8")


def _ports(kind: str, ports: Sequence[EnginePort]) -> dict[str, str]:
    """Return what the header says about inputs or outputs."""
    shapes = [
        f"#define NETWORK_{kind.upper()}_{i}_SHAPE {{{', '.join(map(str, port.shape or (1,)))}}}"
        for i, port in enumerate(ports)
    ]
    return {
        f"{kind}s": str(len(ports)),
        f"{kind}_sizes": ", ".join(str(prod(port.shape)) for port in ports),
        f"{kind}_names": ", ".join(_quoted(port.name) for port in ports),
        f"{kind}_shapes": "\n".join(shapes),
    }


def _quoted(text: str) -> str:
    """Return a string of C that means `text`, in UTF-8, whatever stands in it."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\?')
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in text.encode()) + '"'
