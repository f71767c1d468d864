"""Runs: a recipe carried out stage by stage in a directory of its own, which can be interrupted and resumed.

directory = begin(recipe, Path("runs"))
results = carry_out(directory, Options(listen=print))
results = carry_out(RunDirectory.open(Path("runs/demo")))     # after an interrupt
decision = preview(recipe)                                     # a dry run
"""

from __future__ import annotations

from billhook.pipeline.compress import Options, begin, carry_out, preview
from billhook.pipeline.deciding import Decision
from billhook.pipeline.event import Event, Listener
from billhook.pipeline.run_directory import RunDirectory
from billhook.pipeline.subject import Subject

__all__ = [
    "Decision",
    "Event",
    "Listener",
    "Options",
    "RunDirectory",
    "Subject",
    "begin",
    "carry_out",
    "preview",
]
