"""The programs that build the engine for a target: found, missing, failing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from billhook.compile.toolchain import Toolchain
from billhook.errors import EngineError, NameNotFoundError


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which programs are found; the machine is an x86-64 without CC."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.delenv("CC", raising=False)
    return folder


def _program(folder: Path, name: str, text: str = "exit 0") -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_level_is_built_by_the_compiler_of_the_system(programs: Path) -> None:
    cmake = _program(programs, "cmake")
    _program(programs, "cc")
    assert Toolchain.find("x86-64-v4") == Toolchain("x86-64-v4", cmake, ("-DBH_LEVEL=x86-64-v4",))


def test_the_compiler_may_be_named(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(programs, "cmake")
    monkeypatch.setenv("CC", "mycc -pipe")
    with pytest.raises(
        EngineError, match=r"building the engine for x86-64-v3 needs mycc, which is not there"
    ):
        Toolchain.find("x86-64-v3")
    _program(programs, "mycc")
    Toolchain.find("x86-64-v3")


def test_another_processor_family_takes_a_cross_compiler(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(programs, "cmake")
    _program(programs, "cc")
    with pytest.raises(EngineError, match=r"apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross"):
        Toolchain.find("aarch64")
    compiler = _program(programs, "aarch64-linux-gnu-gcc")
    assert f"-DCMAKE_C_COMPILER={compiler}" in Toolchain.find("aarch64").options
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert Toolchain.find("aarch64").options == ()
    with pytest.raises(EngineError, match=r"apt-get install gcc-x86-64-linux-gnu libc6-dev-amd64-cross"):
        Toolchain.find("x86-64-v3")


def test_missing_cmake_is_said(programs: Path) -> None:
    _program(programs, "cc")
    with pytest.raises(
        EngineError, match=r"for x86-64-v3 needs cmake, which is not there \(pip install cmake"
    ):
        Toolchain.find("x86-64-v3")


def test_programs_of_this_python_are_found_without_a_path(programs: Path, tmp_path: Path) -> None:
    cmake = _program(programs, "cmake")
    _program(programs, "cc")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert Toolchain.find("x86-64-v3").cmake == cmake


def test_a_failing_build_shows_what_was_written_last(programs: Path, tmp_path: Path) -> None:
    _program(programs, "cmake", "echo first line; echo unrecognised -march >&2; exit 1")
    _program(programs, "cc")
    with pytest.raises(EngineError, match=r"(?s)built for x86-64-v3.*first line\n  unrecognised -march"):
        Toolchain.find("x86-64-v3").build(tmp_path)


def test_an_unknown_target_is_named() -> None:
    with pytest.raises(NameNotFoundError, match="unknown target 'arm64'"):
        Toolchain.find("arm64")
