"""The command line: `billhook inspect | compress | search | export | compile | measure | report | …`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from billhook import __version__
from billhook.cli.compile import compile_network
from billhook.cli.compress import compress
from billhook.cli.export import export
from billhook.cli.guard import Guard
from billhook.cli.inspect import inspect
from billhook.cli.measure import measure
from billhook.cli.methods import methods
from billhook.cli.report import report
from billhook.cli.search import app as search

# Nothing in this package imports torch, rich or pydantic before a command runs: help takes 0.15 s.
app = typer.Typer(
    name="billhook",
    help="Make trained PyTorch networks small and fast enough for edge devices.",
    cls=Guard,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS: dict[str, Callable[..., None]] = {
    "inspect": inspect,
    "compress": compress,
    "export": export,
    "compile": compile_network,  # Python has a `compile` of its own
    "measure": measure,
    "report": report,
    "methods": methods,
}
for name, command in _COMMANDS.items():
    app.command(name)(command)
app.add_typer(search, name="search")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Write the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Make trained PyTorch networks small and fast enough for edge devices."""


def main() -> None:
    """Run the command line; the entry point of the `billhook` script."""
    app()
