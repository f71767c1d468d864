"""A search carried out at the command line: its progress on stderr, what it has found on stdout."""

from __future__ import annotations

import shlex
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from billhook.cli.guard import on_failure
from billhook.cli.search.progress import SearchProgress
from billhook.cli.search.study import shown
from billhook.cli.terminal import Terminal

if TYPE_CHECKING:
    from billhook.recipe import Recipe


def carry_out(ctx: typer.Context, terminal: Terminal, recipe: Recipe) -> None:
    """Carry out the search of a recipe, or go on with it, and write what it has found."""
    from billhook.errors import BillhookError
    from billhook.pipeline import Subject
    from billhook.pipeline.searching import run_search, search_of
    from billhook.search.studies.place import Place
    from billhook.search.studies.study import Study

    wanted, subject = search_of(recipe), Subject(recipe)
    terminal.say("  looking at the network …")
    if not subject.weights_from:
        terminal.warn("the network has random weights; give --weights, unless the searcher trains its own")
    known = 0
    with suppress(BillhookError), Study.open(wanted.study, wanted.name) as study:
        known = len(study.finished())
    if known:
        terminal.say(f"  {known} trials are finished already")
    name = f" --study-name {shlex.quote(wanted.name)}" if wanted.name != "search" else ""
    study_place = shlex.quote(str(Place.of(wanted.study)))  # without a password
    on_failure(ctx, f"finished trials are kept; go on with: billhook search resume {study_place}{name}")
    with SearchProgress(terminal, known=known) as progress:
        run_search(subject, on_trial=progress.show, bars=not terminal.quiet)
    shown(terminal, wanted.study, wanted.name)
    terminal.say(f"report: billhook search report {study_place}{name} -o search.html")
