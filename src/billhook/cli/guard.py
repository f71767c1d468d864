"""Errors become one clear message and an exit code, here and nowhere else.

0  done
1  failed
2  wrong usage or recipe
3  no allowed plan meets the budget
130  interrupted
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from billhook.errors import BillhookError

INTERRUPTED = 130
_DEBUG = "billhook.debug"
_QUIET = "billhook.quiet"
_HINT = "billhook.hint"


class Guard(TyperGroup):
    """The group of all commands; turns what they raise into messages on stderr."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; the library's log messages go to stderr meanwhile."""
        try:
            with _log_to_stderr(ctx):
                return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.stderr.write(f"\ninterrupted{_hint(ctx)}\n")
            ctx.exit(INTERRUPTED)
        except BillhookError as e:
            # What the user asked for cannot be had (2, 3): going on would end the same way.
            _show(ctx, f"error: {e}{_hint(ctx) if e.exit_code == 1 else ''}")
            ctx.exit(e.exit_code)
        except BrokenPipeError:
            # The reader of stdout has gone (`| head`); nothing is wrong, and nothing more can be said there.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except OSError as e:
            full = e.errno in (errno.ENOSPC, errno.EDQUOT)
            what = "no space left on the device; free some space" if full else f"{type(e).__name__}: {e}"
            _show(ctx, f"error: {what}{_hint(ctx)}")
            ctx.exit(1)
        except MemoryError:
            _show(ctx, f"error: not enough memory; a smaller batch may help{_hint(ctx)}")
            ctx.exit(1)
        except Exception as e:
            if _is_usage(e):
                raise
            advice = "" if ctx.meta.get(_DEBUG) else "; run again with --debug to see where"
            _show(ctx, f"error: {type(e).__name__}: {_first_line(e)}{advice}{_hint(ctx)}")
            ctx.exit(1)


def remember_quiet(ctx: typer.Context, value: bool) -> bool:
    """Keep the value of --quiet where the log handler finds it."""
    ctx.meta[_QUIET] = value
    return value


def remember_debug(ctx: typer.Context, value: bool) -> bool:
    """Keep the value of --debug where the guard finds it."""
    ctx.meta[_DEBUG] = value
    return value


def on_failure(ctx: typer.Context, hint: str) -> None:
    """Say `hint` after the message if the command fails or is interrupted from now on."""
    ctx.meta[_HINT] = hint


class _Messages(logging.Handler):
    """Writes log records to the present stderr; with --quiet, warnings only."""

    def __init__(self, ctx: Any) -> None:
        super().__init__()
        self._ctx = ctx

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if record.levelno >= logging.WARNING or not self._ctx.meta.get(_QUIET):
            sys.stderr.write(f"  {record.getMessage()}\n")


@contextmanager
def _log_to_stderr(ctx: Any) -> Iterator[None]:
    logger = logging.getLogger("billhook")
    level, handler = logger.level, _Messages(ctx)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _show(ctx: Any, message: str) -> None:
    if ctx.meta.get(_DEBUG):
        traceback.print_exc(file=sys.stderr)
    sys.stderr.write(message + "\n")


def _hint(ctx: Any) -> str:
    hint = ctx.meta.get(_HINT)
    return f"\n{hint}" if hint else ""


def _is_usage(error: Exception) -> bool:
    """True for what typer itself raises: wrong usage, `Exit`, `Abort`; it prints these well."""
    return any(c.__name__ in ("ClickException", "Exit", "Abort") for c in type(error).__mro__)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:500]
