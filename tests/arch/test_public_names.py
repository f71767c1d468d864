"""`import billhook` is light, and gives every public name when it is asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from types import ModuleType

import pytest

import billhook
from tests.arch.source import OPTIONAL, PACKAGE

PUBLIC = [
    *("groups", "capture", "prune", "apply", "apply_", "verify", "silence", "cost", "save", "load"),
    *(
        "Plan",
        "Budget",
        "Scope",
        "Calibration",
        "ChannelGroup",
        "Groups",
        "Cost",
        "Check",
        "Measurement",
        "Fusion",
    ),
    *("shrink", "pruning_callback", "Outcome", "MethodCallback"),
    *("sparsify", "sparsifying_callback", "Sparsified"),
    *("export", "latency", "BillhookError", "BudgetError", "__version__"),
]


def test_the_public_names_are_these() -> None:
    assert sorted(billhook.__all__) == sorted(PUBLIC)
    assert set(PUBLIC) <= set(dir(billhook))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_resolves_to_its_object(name: str) -> None:
    value = getattr(billhook, name)
    assert value is getattr(billhook, name)
    if name != "__version__":
        assert callable(value), f"billhook.{name} is {value!r}; does a module of that name hide it?"
        assert not isinstance(value, ModuleType)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If))
    seen = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert seen == billhook._HOMES


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'prun'"):
        _ = billhook.prun


def test_import_billhook_loads_nothing_heavy() -> None:
    loaded = _modules_after("import billhook")
    assert not loaded & {"torch", "numpy", "scipy", "pydantic", "typer", "rich", *OPTIONAL}


def test_no_public_name_needs_an_optional_library() -> None:
    loaded = _modules_after("import billhook; [getattr(billhook, name) for name in billhook.__all__]")
    assert "torch" in loaded
    assert not loaded & set(OPTIONAL)


def _modules_after(code: str) -> set[str]:
    """Return the top-level modules that are loaded after `code` has run in a fresh interpreter."""
    report = "import sys; print(*(name for name in sys.modules if '.' not in name))"
    program = [sys.executable, "-c", f"{code}; {report}"]
    return set(subprocess.run(program, check=True, capture_output=True, text=True).stdout.split())
