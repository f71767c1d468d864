"""`python -m billhook` is the same as the command `billhook`."""

from __future__ import annotations

from billhook.cli import main

if __name__ == "__main__":
    main()
