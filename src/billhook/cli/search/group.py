"""The commands below `billhook search`; whatever is none of them is the MODEL of a new search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from billhook.cli.search.export import export
from billhook.cli.search.report import report
from billhook.cli.search.resume import resume
from billhook.cli.search.run import run
from billhook.cli.search.show import show

HELP = """Search for the widths and densities that meet a budget.

billhook search MODEL --data NAME --budget macs=0.5 --study s.db begins one; all its options:
billhook search run --help. The other commands need only the study.
"""
_ANYTHING = "run"


class Search(TyperGroup):
    """Takes `billhook search MODEL` for `billhook search run MODEL`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command in front that is meant if none is named."""
        if args and args[0] not in {*self.commands, "-h", "--help"}:
            args = [_ANYTHING, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="search",
    help=HELP,
    cls=Search,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS: dict[str, Callable[..., None]] = {
    _ANYTHING: run,
    "resume": resume,
    "show": show,
    "report": report,
    "export": export,
}
for name, command in _COMMANDS.items():
    app.command(name)(command)
