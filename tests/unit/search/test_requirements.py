"""A search says before it starts which optional library is missing."""

from __future__ import annotations

import sys
import tomllib
from importlib.machinery import PathFinder

import pytest
from packaging.requirements import Requirement

from billhook.errors import MissingExtraError
from billhook.search.requirements import LIBRARIES, require
from tests.arch.source import PLACES, ROOT


def test_what_is_installed_passes_and_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "optuna", raising=False)
    require("optuna", what="a study")
    assert "optuna" not in sys.modules


@pytest.mark.parametrize(
    ("library", "message"),
    [
        ("stable_baselines3", r"the searcher 'amc' needs .*'stable-baselines3'.*billhook\[search\]"),
        ("ray", r"'ray'.*billhook\[ray\]"),
        ("pg8000", r"'pg8000'.*billhook\[postgres\]"),
    ],
)
def test_what_is_missing_is_named_with_its_extra(
    library: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = PathFinder.find_spec
    monkeypatch.delitem(sys.modules, library, raising=False)
    monkeypatch.setattr(
        PathFinder,
        "find_spec",
        classmethod(lambda cls, name, *rest: None if name == library else find(name, *rest)),
    )
    with pytest.raises(MissingExtraError, match=message):
        require("optuna", library, what="the searcher 'amc'")


def test_the_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for library, (name, extra) in LIBRARIES.items():
        assert name in [Requirement(line).name for line in extras[extra]]
        assert library in PLACES
