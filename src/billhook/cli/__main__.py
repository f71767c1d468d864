"""`python -m billhook.cli`."""

from __future__ import annotations

from billhook.cli.app import main

main()
