"""`compile_for`: a network compiled for billhook's engine, with all that a device needs to run it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from billhook import __version__
from billhook.compile.c_project import MODEL_FOLDER, write_project
from billhook.compile.int8.calibration import Calibration
from billhook.compile.library import HEADER, LIBRARY, isas, library_path
from billhook.compile.session import EnginePort
from billhook.compile.toolchain import TARGETS as BUILT
from billhook.compile.toolchain import Toolchain
from billhook.deploy._new_folder import new_folder
from billhook.deploy.backends.billhook_ import BillhookEngine
from billhook.deploy.exporter import export
from billhook.errors import NameNotFoundError
from billhook.graph.inputs import ExampleInputs
from billhook.measure.artifact import Artifact
from billhook.measure.manifest import TensorSpec

TARGETS = ("native", *BUILT, "c")
# Whose timings say how convolutions are cut, where this processor has it; sources may run anywhere.
_TUNED_FOR = {"x86-64-v3": "avx2", "x86-64-v4": "avx512", "aarch64": "neon"}


def compile_for(
    model: nn.Module,
    example_inputs: ExampleInputs,
    directory: str | Path,
    *,
    target: str = "native",
    inputs_for_parity: ExampleInputs | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
) -> Artifact:
    """Compile `model` for the engine into the new folder `directory`, ready to be shipped to a target.

    The compiled network is run here and compared with PyTorch, by this machine's build of the engine. The
    folder appears whole or not at all. For "native" and processors it is an artifact with model.bhk,
    libbillhook.so and billhook.h; for "c" it is a C project whose folder "model" is the artifact.
    Building the engine for another target takes about 10 s. Convolutions are cut as is fastest on the target
    if this processor can tell (see `billhook.compile.tune`), in the usual way otherwise.

    Args:
        model: The network; run in eval mode, left as it is.
        example_inputs: A tensor, a tuple, or a dict of keyword arguments.
        directory: Folder to make.
        target: "native" (this machine and others of its processor family), a processor ("x86-64-v3",
            "x86-64-v4", "aarch64"; built with the system's compiler), or "c" (sources).
        inputs_for_parity: Real data for the comparison, in the form of the example inputs; the example
            itself if not given.
        preprocessing: What happens to data before it is fed; kept in the manifest.
        calibration: Data to compute in 8 bits with; float32 if not given. See `export`.
    Returns:
        The artifact; in `directory`, or in its folder "model" for "c".
    Raises:
        NameNotFoundError: if there is no such target.
        UnsupportedError: if the engine has no form for some of the operators; names all of them.
        EngineError: if the engine is not built, or what builds it for `target` is missing or fails.
        ExportError: if the network cannot be compiled, or the engine disagrees with PyTorch.
        StorageError: if `directory` exists or cannot be written.
    """
    if target not in TARGETS:
        raise NameNotFoundError("target", target, TARGETS)
    tools = Toolchain.find(target) if target in BUILT else None  # what is missing is said before the work
    directory = Path(directory)
    with new_folder(directory) as part:
        artifact = export(
            model,
            example_inputs,
            part / MODEL_FOLDER if target == "c" else part,
            backend=BillhookEngine(fallback=None, tuned_for=_tuned_for(target)),
            inputs_for_parity=inputs_for_parity,
            preprocessing=preprocessing,
            calibration=calibration,
        )
        manifest = artifact.manifest
        if target == "c":
            write_project(part, _ports(manifest.inputs), _ports(manifest.outputs), __version__)
            return Artifact(directory / MODEL_FOLDER, manifest)
        _add_library(part, tools)
        manifest = replace(manifest, notes=(*manifest.notes, f"{LIBRARY} is the engine for {target}"))
        manifest = Artifact.create(part, manifest).manifest  # with the hashes of the new files
    return Artifact(directory, manifest)


def _tuned_for(target: str) -> str | None:
    if target == "native":
        return "best"
    return _TUNED_FOR[target] if _TUNED_FOR.get(target) in isas() else None


def _add_library(directory: Path, tools: Toolchain | None) -> None:
    """Put the engine and its header into a folder: this machine's, or what the tools build."""
    with tempfile.TemporaryDirectory(prefix="billhook-") as scratch:
        shutil.copyfile(library_path() if tools is None else tools.build(Path(scratch)), directory / LIBRARY)
    shutil.copyfile(HEADER, directory / HEADER.name)


def _ports(specs: tuple[TensorSpec, ...]) -> list[EnginePort]:
    """Return inputs or outputs without the batch, which comes first."""
    return [EnginePort(spec.name, tuple(n for n in spec.shape[1:] if n is not None)) for spec in specs]
