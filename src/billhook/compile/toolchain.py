"""The engine built for another processor than this one, or for one level of processors only."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from billhook.compile.library import ENGINE, LIBRARY
from billhook.errors import EngineError, NameNotFoundError

LEVELS = ("x86-64-v3", "x86-64-v4")
TARGETS = (*LEVELS, "aarch64")
_LAST_LINES = 12  # of what a failed build has written


@dataclass(frozen=True)
class Toolchain:
    """Programs that build the engine for a target.

    Attributes:
        target: One of `TARGETS`.
        cmake: Path of CMake.
        options: What CMake is told about the target.
    """

    target: str
    cmake: str
    options: tuple[str, ...]

    @classmethod
    def find(cls, target: str) -> Toolchain:
        """Return the programs for a target, found on the PATH.

        For the processor family of this machine that is the compiler which CC names, or cc; for another
        one a cross compiler.

        Raises:
            NameNotFoundError: if there is no such target.
            EngineError: if a program is missing; says how to get it.
        """
        if target not in TARGETS:
            raise NameNotFoundError("target", target, TARGETS)
        cmake = _program("cmake", target, "pip install cmake, or Debian: apt-get install cmake make")
        family = "aarch64" if target == "aarch64" else "x86_64"
        options = [f"-DBH_LEVEL={target}"] if target in LEVELS else []
        if family == _this_family():
            first, *_ = shlex.split(os.environ.get("CC", "")) or ["cc"]
            _program(first, target, "Debian: apt-get install gcc libc6-dev; or set CC")
        else:
            name = f"{family}-linux-gnu-gcc"
            packages = f"gcc-{family.replace('_', '-')}-linux-gnu libc6-dev-{_DEBIAN[family]}-cross"
            compiler = _program(name, target, f"Debian: apt-get install {packages}")
            options += [
                "-DCMAKE_SYSTEM_NAME=Linux",
                f"-DCMAKE_SYSTEM_PROCESSOR={family}",
                f"-DCMAKE_C_COMPILER={compiler}",
            ]
        return cls(target, cmake, tuple(options))

    def build(self, directory: Path) -> Path:
        """Build the engine in the existing folder `directory` and return the library; takes some seconds.

        Raises:
            EngineError: if the compiler or CMake fails; ends with what they wrote.
        """
        ninja = ["-G", "Ninja"] if shutil.which("ninja", path=_search_path()) else []
        self._run(
            "-S", str(ENGINE), "-B", str(directory), "-DCMAKE_BUILD_TYPE=Release", *ninja, *self.options
        )
        self._run("--build", str(directory), "--parallel", str(os.cpu_count() or 1))
        return directory / LIBRARY

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(
            [self.cmake, *arguments],
            env={**os.environ, "PATH": _search_path()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            lines = [line for line in done.stdout.splitlines() if line.strip()]
            said = "\n  ".join(lines[-_LAST_LINES:])
            raise EngineError(f"the engine could not be built for {self.target}; CMake says:\n  {said}")


_DEBIAN = {"aarch64": "arm64", "x86_64": "amd64"}  # Debian's names of processor families


def _this_family() -> str:
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def _program(name: str, target: str, remedy: str) -> str:
    found = shutil.which(name, path=_search_path())
    if found is None:
        raise EngineError(f"building the engine for {target} needs {name}, which is not there ({remedy})")
    return found


def _search_path() -> str:
    """Return the PATH and, behind it, the folder of Python's own programs, where pip puts CMake and Ninja."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)))
