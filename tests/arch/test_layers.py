"""The floors of the house: who may import whom (the contracts are in pyproject.toml)."""

from __future__ import annotations

import pytest
from importlinter.cli import lint_imports

from tests.arch.source import ROOT


def test_every_floor_imports_only_from_below(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "src"))
    # It would disable all loggers that exist, and tests of warnings behind this one would see none.
    monkeypatch.setattr("logging.config.dictConfig", lambda settings: None)
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert status == 0, capsys.readouterr().out
