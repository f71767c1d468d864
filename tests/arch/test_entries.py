"""Every criterion, allocator and method has its record, its test file and its row in the documentation."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import billhook
from billhook.registry import Info, Registry
from tests.arch.source import ROOT

TESTED_ONE_BY_ONE = ("billhook.criteria", "billhook.allocate", "billhook.methods", "billhook.search")


def _registries() -> list[Registry[object]]:
    packages = [m.name for m in pkgutil.walk_packages(billhook.__path__, "billhook.") if m.ispkg]
    # That of the patterns lies below the folder which it lists.
    modules = [importlib.import_module(name) for name in (*packages, "billhook.graph.patterns")]
    found = {v.package: v for m in modules for v in vars(m).values() if isinstance(v, Registry)}
    return list(found.values())


ENTRIES = [(registry, name) for registry in _registries() for name in registry.names()]
IDS = [f"{registry.package}-{name}" for registry, name in ENTRIES]


def test_the_packages_of_plug_ins_define_registries() -> None:
    found = {registry.package for registry in _registries()}
    assert len(found) >= 6, (
        f"expected criteria, allocators, methods, backends, models and data sets; found {found}"
    )
    for package in TESTED_ONE_BY_ONE:
        assert any(f.startswith(package) for f in found), f"no registry in {package}"


@pytest.mark.parametrize(("registry", "name"), ENTRIES, ids=IDS)
def test_an_entry_has_a_record_and_an_object(registry: Registry[object], name: str) -> None:
    info = registry.info(name)
    assert isinstance(info, Info)
    assert info.title
    assert "\n" not in info.title + info.source + info.notes, "the texts are cells of tables"
    assert registry.get(name) is not None


@pytest.mark.parametrize(("registry", "name"), ENTRIES, ids=IDS)
def test_an_entry_has_its_own_test_file(registry: Registry[object], name: str) -> None:
    if not registry.package.startswith(TESTED_ONE_BY_ONE):
        return
    folder = (ROOT / "tests/unit").joinpath(*registry.package.split(".")[1:])
    file = f"test_{name.replace('-', '_')}.py"
    assert list(folder.rglob(file)), f"write {file} below {folder.relative_to(ROOT)}"


def test_the_capability_tables_are_up_to_date() -> None:
    program = [sys.executable, "scripts/update_capabilities", "--check"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_tables_of_figures_are_up_to_date() -> None:
    program = [sys.executable, "scripts/update_tables", "--check"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
