from __future__ import annotations

import errno
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from billhook.cli.guard import Guard, on_failure, remember_debug
from billhook.errors import BudgetError, InputError, StorageError

app = typer.Typer(cls=Guard, rich_markup_mode=None, pretty_exceptions_enable=False)

FAILURES: dict[str, BaseException] = {
    "input": InputError("no such thing"),
    "storage": StorageError("broken file"),
    "budget": BudgetError("at best 0.4"),
    "interrupt": KeyboardInterrupt(),
    "full": OSError(errno.ENOSPC, "No space left on device", "x.json"),
    "denied": PermissionError(errno.EACCES, "Permission denied", "x.json"),
    "memory": MemoryError(),
    "bug": RuntimeError("index 156 is out of bounds\nwith more lines"),
    "exit": typer.Exit(5),
}


@app.callback()
def group() -> None: ...


@app.command()
def fail(
    ctx: typer.Context,
    how: str,
    debug: Annotated[bool, typer.Option("--debug", callback=remember_debug, is_eager=True)] = False,
    hint: str = "",
) -> None:
    if hint:
        on_failure(ctx, hint)
    raise FAILURES[how]


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("input", 2, "error: no such thing"),
        ("storage", 1, "error: broken file"),
        ("budget", 3, "error: at best 0.4"),
        ("interrupt", 130, "interrupted"),
        ("full", 1, "error: no space left on the device; free some space"),
        ("denied", 1, "error: PermissionError: [Errno 13] Permission denied: 'x.json'"),
        ("memory", 1, "error: not enough memory; a smaller batch may help"),
        ("bug", 1, "error: RuntimeError: index 156 is out of bounds; run again with --debug to see where"),
        ("exit", 5, ""),
    ],
)
def test_each_failure_is_one_message_and_one_code(how: str, code: int, message: str) -> None:
    outcome = CliRunner().invoke(app, ["fail", how])
    assert outcome.exit_code == code
    assert outcome.stderr.strip() == message
    assert outcome.stdout == ""


@pytest.mark.parametrize("how", ["storage", "interrupt", "full", "bug"])
def test_the_hint_says_how_to_go_on(how: str) -> None:
    outcome = CliRunner().invoke(app, ["fail", how, "--hint", "continue with --resume"])
    assert outcome.stderr.strip().endswith("\ncontinue with --resume")


def test_debug_shows_the_traceback() -> None:
    outcome = CliRunner().invoke(app, ["fail", "bug", "--debug"])
    assert "Traceback" in outcome.stderr
    assert "--debug" not in outcome.stderr.splitlines()[-1]


def test_wrong_usage_is_left_to_the_parser() -> None:
    outcome = CliRunner().invoke(app, ["fail", "input", "--hnit", "x"])
    assert outcome.exit_code == 2
    assert "--hnit" in outcome.stderr
