from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from billhook.errors import InputError
from billhook.models import resolve

MINE = """
from dataclasses import dataclass
import torch
from neighbour import WIDTH

@dataclass
class Options:
    width: int = WIDTH

def network(width=WIDTH, bias=True):
    return torch.nn.Linear(Options(width).width, 2, bias=bias)

def wrong():
    return {"a": 1}

def broken():
    return network(width="a lot")

finished = torch.nn.ReLU()
number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the user's code, which is the current one."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "neighbour.py").write_text("WIDTH = 5\n")
    (tmp_path / "failing.py").write_text("import torch\nx = 1 / 0\n")
    (tmp_path / "lacking.py").write_text("import no_such_library\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    package = tmp_path / "package_of_mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "models.py").write_text("import torch\ndef tiny(): return torch.nn.Linear(1, 1)\n")
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)
    yield tmp_path
    assert sys.path == path, "sys.path must be as before"
    for name in set(sys.modules) - before:
        del sys.modules[name]


def width(model: nn.Module) -> int:
    assert isinstance(model, nn.Linear)
    return model.in_features


def test_a_name_of_the_zoo() -> None:
    model = resolve("resnet-8", {"width": 2, "num_classes": 3})

    assert model.classifier.out_features == 3  # type: ignore[union-attr]


def test_defaults_apply_to_the_zoo_where_they_are_known() -> None:
    defaults = {"in_channels": 1, "num_classes": 5, "unknown": 0}

    model = resolve("resnet-8", {"num_classes": 3}, defaults=defaults)

    assert model.conv.in_channels == 1
    assert model.classifier.out_features == 3


def test_a_callable_in_a_file(folder: Path) -> None:
    assert width(resolve("mine.py:network")) == 5
    assert width(resolve(f"{folder}/mine.py:network", {"width": 7})) == 7
    assert isinstance(resolve("mine.py:finished"), nn.ReLU)


def test_a_callable_in_a_module_of_the_current_folder(folder: Path) -> None:
    assert width(resolve("mine:network", {"bias": False})) == 5
    assert width(resolve("package_of_mine.models:tiny")) == 1
    assert isinstance(resolve("torch.nn:Identity"), nn.Identity)


def test_defaults_do_not_reach_the_users_code(folder: Path) -> None:
    assert width(resolve("mine.py:network", defaults={"in_channels": 1, "num_classes": 10})) == 5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet-21", r"unknown model 'resnet-21'; did you mean 'resnet-20'.*package\.module:callable"),
        ("nothing.py:network", r"there is no file 'nothing\.py'"),
        ("mine.py:netwrok", r"mine\.py has no 'netwrok'; did you mean 'network'"),
        ("mine.py:", "has no ''"),
        ("mine.py:number", "is of type int; name a function or class"),
        ("mine.py:wrong", "returned a dict instead of a torch.nn.Module"),
        ("mine.py:broken", r"calling mine\.py:broken failed: TypeError: .*mine\.py:11\)"),
        ("failing.py:f", r"running failing\.py failed: ZeroDivisionError: .*failing\.py:2\)"),
        ("lacking.py:f", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("lacking:f", r"importing lacking failed: ModuleNotFoundError: No module named 'no_such_library'"),
        ("syntax.py:f", r"running syntax\.py failed: SyntaxError"),
        ("no_such_module:f", "there is no module 'no_such_module'"),
        ("package_of_mine.nets:f", r"there is no module 'package_of_mine\.nets'"),
        ("a b:f", "is no module name"),
        (":f", "is no module name"),
    ],
)
def test_mistakes_give_one_message(folder: Path, spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(spec)


def test_arguments_that_the_callable_does_not_take_are_told(folder: Path) -> None:
    with pytest.raises(InputError, match=r"calling mine\.py:network failed: TypeError: .*'depth'"):
        resolve("mine.py:network", {"depth": 3})
    with pytest.raises(InputError, match="takes no arguments: depth"):
        resolve("mine.py:finished", {"depth": 3})
