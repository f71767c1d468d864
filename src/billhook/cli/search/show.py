"""`billhook search show`: how far a search is and what it has found."""

from __future__ import annotations

from billhook.cli.options import Debug, Json, Quiet
from billhook.cli.search.options import Study, StudyName, Top
from billhook.cli.search.study import TOP, shown
from billhook.cli.terminal import Terminal


def show(
    study: Study,
    study_name: StudyName = None,
    top: Top = TOP,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show the best trials of a search and its front; --json writes all trials."""
    shown(Terminal(as_json, quiet), study, study_name, top)
