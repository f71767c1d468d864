"""The command line. Builds a recipe, calls the pipeline, and writes what comes back."""

from __future__ import annotations

from billhook.cli.app import main

__all__ = ["main"]
