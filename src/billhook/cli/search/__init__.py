"""`billhook search`: a search begun, continued, looked at, and its trials exported."""

from __future__ import annotations

from billhook.cli.search.group import app

__all__ = ["app"]
