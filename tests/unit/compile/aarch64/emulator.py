"""Runs model files with the engine for aarch64, under qemu."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from billhook.compile.library import ENGINE, ISAS
from billhook.compile.session import EngineSession
from billhook.compile.toolchain import Toolchain
from billhook.errors import EngineError

Floats = npt.NDArray[np.float32]
COMPILER = "aarch64-linux-gnu-gcc"
SYSTEM = "/usr/aarch64-linux-gnu"  # where Debian's cross compiler has its libc
INSTALL = "run scripts/setup --tests as root"


def tools() -> Toolchain:
    """Return what builds the engine for aarch64; skip the test where that, or qemu, is not installed."""
    try:
        found = Toolchain.find("aarch64")
    except EngineError as error:
        pytest.skip(f"{error}; {INSTALL}")
    if shutil.which("qemu-aarch64") is None:
        pytest.skip(f"qemu-user is not installed; {INSTALL}")
    return found


def emulated(program: Path, *arguments: str | Path) -> str:
    """Return what a program for aarch64 writes to stdout."""
    command = ["qemu-aarch64", "-L", SYSTEM, program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Emulator:
    """The engine as a library for aarch64 and a program that calls it, both built in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        library = tools().build(folder)
        self.program = folder / "run_model"
        source = Path(__file__).with_name("run_model.c")
        command = [COMPILER, "-O1", "-Wall", "-Wextra", "-Werror", f"-I{ENGINE / 'include'}", source, library]
        subprocess.run([*command, f"-Wl,-rpath,{folder}", "-o", self.program], check=True)

    def session(self, model: bytes, threads: int = 1, isa: str = "best") -> EmulatedSession:
        """Return what stands in for an `EngineSession`."""
        return EmulatedSession(self, model, threads, isa)


class EmulatedSession:
    """Runs a model file in a process of its own."""

    def __init__(self, emulator: Emulator, model: bytes, threads: int, isa: str) -> None:
        self._emulator, self._threads, self._isa = emulator, threads, isa
        with EngineSession(model) as session:
            self._outputs = session.outputs
        (emulator.folder / "model.bhk").write_bytes(model)

    def run(self, inputs: Sequence[Floats]) -> list[Floats]:
        """Return the outputs for a batch; see `EngineSession.run`."""
        folder, batch = self._emulator.folder, len(inputs[0])
        given, made = folder / "inputs.bin", folder / "outputs.bin"
        given.write_bytes(b"".join(np.asarray(x, np.float32).tobytes() for x in inputs))
        numbers = (str(ISAS[self._isa]), str(self._threads), str(batch))
        ran = emulated(self._emulator.program, folder / "model.bhk", *numbers, given, made).strip()
        assert ran == ("dotprod" if self._isa == "best" else self._isa)
        shapes = [(batch, *port.shape) for port in self._outputs]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        parts = np.split(np.fromfile(made, np.float32), ends[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def __enter__(self) -> EmulatedSession:
        return self

    def __exit__(self, *_: object) -> None:
        pass
