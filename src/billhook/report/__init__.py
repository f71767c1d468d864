"""Reports of runs: one self-contained HTML file, and tables for the terminal.

`write_html` and `terminal_report` take what `Run.load` returns; `tables` has what the commands print.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from billhook.report.tables import cost_table, groups_table, latency_table, methods_table, weights_table
from billhook.report.terminal import terminal_report
from billhook.run_record import Run

__all__ = [
    "cost_table",
    "groups_table",
    "latency_table",
    "methods_table",
    "terminal_report",
    "weights_table",
    "write_html",
]


def write_html(runs: Sequence[Run], path: str | Path) -> Path:
    """Write the report of one run, or the comparison of several; see `billhook.report.html.write_html`."""
    from billhook.report.html import write_html as write  # the template engine, only when it is needed

    return write(runs, path)
