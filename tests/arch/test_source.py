"""What no source file may do; each test names the offenders."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

import billhook
from tests.arch.source import OPTIONAL, Source, imports, may_import, optional_imports, sources

LONGEST_FILE = 300
RUN_CODE = {"cloudpickle", "dill", "joblib", "marshal", "shelve"}


def test_a_file_reads_in_one_sitting() -> None:
    lengths = {s.name: len(s.text.splitlines()) for s in sources()}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FILE}


def test_a_file_is_named_after_what_it_holds() -> None:
    vague = {"util", "utils", "helper", "helpers", "common", "misc"}
    words = {
        s.name: {w for part in s.name.removesuffix(".py").split("/") for w in part.split("_")}
        for s in sources()
    }
    assert not [name for name, its in words.items() if its & vague]


def test_a_file_says_what_it_is_for() -> None:
    texts = {s.name: ast.get_docstring(s.tree) or "" for s in sources()}
    assert not [name for name, text in texts.items() if not text or text.startswith("TODO")]


def test_only_cli_and_report_print() -> None:
    assert not [
        f"{source.name}:{node.lineno}"
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and _name(node.func) == "print"
        if not source.name.startswith(("cli/", "report/"))
    ]


def test_no_file_runs_code_that_it_finds_in_data() -> None:
    assert not [offence for source in sources() for offence in _unsafe(source)]


@pytest.mark.parametrize("library", OPTIONAL)
def test_an_optional_library_is_imported_only_in_its_places(library: str) -> None:
    files = [s for s in sources() if library in optional_imports(s)]
    assert not [s.name for s in files if not may_import(s, library)]
    places = [s.name for s in sources() if may_import(s, library)]
    assert files or not places, f"{library} is not imported in any of {places}: take it off the list"


def test_optional_libraries_are_imported_inside_functions() -> None:
    at_import = {s.name: optional_imports(s, inside_functions=False) for s in sources()}
    late = {name: its for name, its in at_import.items() if its and not name.startswith("search/")}
    assert not late


def test_no_package_needs_an_optional_library() -> None:
    # Files of the search import theirs with the file, and are themselves imported inside functions.
    assert not [s.name for s in sources() if s.name.endswith("__init__.py") and optional_imports(s)]
    packages = [m.name for m in pkgutil.walk_packages(billhook.__path__, "billhook.") if m.ispkg]
    report = "import sys; print(*(name for name in sys.modules if '.' not in name))"
    program = [sys.executable, "-c", f"import {', '.join(packages)}; {report}"]
    loaded = subprocess.run(program, check=True, capture_output=True, text=True).stdout.split()
    assert "torch" in loaded
    assert not set(loaded) & set(OPTIONAL)


def _unsafe(source: Source) -> Iterator[str]:
    """Yield what could run code from a file: other picklers, torch.load, numpy's and Python's pickles."""
    if modules := imports(source.tree) & RUN_CODE:
        yield f"{source.name}: imports {modules}"
    restricted = _bases_of_restricted_unpicklers(source.tree)
    for node in ast.walk(source.tree):
        name, place = _name(node), f"{source.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "_pickle"):
            yield f"{place}: import pickle as a module, so that this test sees how it is used"
        elif name.startswith("pickle.") and name != "pickle.UnpicklingError" and node not in restricted:
            yield f"{place}: {name}; only an Unpickler with its own find_class may read a pickle"
        elif isinstance(node, ast.Call):
            options = {k.arg: getattr(k.value, "value", True) for k in node.keywords}
            if _name(node.func) == "torch.load" and options.get("weights_only") is not True:
                yield f"{place}: torch.load without weights_only=True"
            if options.get("allow_pickle"):
                yield f"{place}: allow_pickle"


def _bases_of_restricted_unpicklers(tree: ast.Module) -> set[ast.expr]:
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return {
        base
        for c in classes
        for base in c.bases
        if _name(base) == "pickle.Unpickler"
        if any(isinstance(f, ast.FunctionDef) and f.name == "find_class" for f in c.body)
    }


def _name(node: ast.AST) -> str:
    """Return "print" or "torch.load" for a name or an attribute of a name, "" for anything else."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id=base), attr=attribute):
            return f"{base}.{attribute}"
    return ""
