"""One runner for all end-to-end tests: the command line, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from billhook.cli.app import app

NETS = Path(__file__).with_name("nets.py")


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    stdout: str
    stderr: str

    @property
    def data(self) -> Any:
        """stdout as JSON."""
        return json.loads(self.stdout)


Billhook = Callable[..., Outcome]


def billhook_command(*arguments: str | Path) -> Outcome:
    """Run `billhook ARGUMENTS`."""
    outcome = CliRunner().invoke(app, [str(a) for a in arguments])
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    return Outcome(outcome.exit_code, outcome.stdout, outcome.stderr)


@pytest.fixture
def billhook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Billhook:
    """Return the runner; the current folder is an empty one."""
    monkeypatch.chdir(tmp_path)
    return billhook_command
