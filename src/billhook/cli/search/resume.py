"""`billhook search resume`: a search goes on, or further than it was meant to."""

from __future__ import annotations

import typer

from billhook.cli.options import Debug, Json, Quiet
from billhook.cli.search.carry_out import carry_out
from billhook.cli.search.options import More, Ray, Study, StudyName, Workers
from billhook.cli.terminal import Terminal


def resume(
    ctx: typer.Context,
    study: Study,
    study_name: StudyName = None,
    trials: More = None,
    workers: Workers = None,
    ray: Ray = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Go on with a search where it stopped; what is finished is not evaluated again."""
    from billhook.pipeline.searching import resume_recipe

    recipe = resume_recipe(study, study_name or "search", more=trials, workers=workers, ray=ray)
    carry_out(ctx, Terminal(as_json, quiet), recipe)
