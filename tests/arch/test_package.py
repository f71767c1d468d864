"""pyproject.toml, constraints.txt and what ends up in the wheel agree with each other."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import billhook
from tests.arch.source import PACKAGE, ROOT

ENGINE = PACKAGE / "compile" / "engine"
PROJECT = PACKAGE / "compile" / "project"  # what a C project is made of
LIBRARY = "compile/engine/libbillhook.so"
C_PROJECT = ("CMakeLists.txt", "LICENSE", "README.md", "aarch64.cmake", "main.c", "model.S", "network.h")
DATA = {".html", ".css", ".js", ".json", ".safetensors", ".toml"}


def _project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _requirements() -> list[Requirement]:
    project = _project()
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(line) for requirements in lists for line in requirements]


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("requirement", _requirements(), ids=str)
def test_a_requirement_is_pinned_within_its_range(requirement: Requirement) -> None:
    if requirement.name == "billhook":
        return
    pin = _pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin)


def test_pins_fit_any_build_of_torch() -> None:
    assert _pins()["torch"] == "2.13.0"
    assert not any("+" in version for version in _pins().values())


def test_the_extra_all_names_every_library_a_user_may_want() -> None:
    extras = _project()["optional-dependencies"]
    wanted = set(extras) - {"all", "dev", "docs"}
    assert set(Requirement(extras["all"][0]).extras) == wanted


@pytest.mark.parametrize("compiler", [True, False])
def test_the_wheel_holds_the_package_and_its_data_and_nothing_else(
    compiler: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiler:
        monkeypatch.setenv("CC", "/no/compiler")
    elif not shutil.which("cc"):
        pytest.skip("no C compiler; install gcc")
    # A copy of what the build reads: it must work without git, and must not write into the work tree.
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    built = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(PACKAGE, tmp_path / "src/billhook", ignore=built)
    program = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        "dist",
        ".",
    ]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    (wheel,) = (tmp_path / "dist").glob("billhook-*.whl")
    assert ("-py3-none-any" in wheel.name) == (not compiler)
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = [p for p in PACKAGE.rglob("*") if p.suffix in {".py", *DATA} or p.name == "py.typed"]
    files += [p for p in ENGINE.rglob("*") if p.suffix in {".c", ".h", ".txt"} and p.parent.name != "fuzz"]
    files += [PROJECT / name for name in C_PROJECT]
    expected = {f"billhook/{p.relative_to(PACKAGE).as_posix()}" for p in files}
    assert packed == expected | ({f"billhook/{LIBRARY}"} if compiler else set())


def test_the_engine_is_small() -> None:
    library = PACKAGE / LIBRARY
    if not library.is_file():
        pytest.skip("the engine is not built; run scripts/engine")
    assert library.stat().st_size <= 1_000_000


def test_the_engine_has_the_version_of_the_package() -> None:
    text = (ENGINE / "CMakeLists.txt").read_text()
    assert f"VERSION {billhook.__version__} " in text
