"""`billhook search report`: one search, or several over each other, as one HTML file."""

from __future__ import annotations

from pathlib import Path

from billhook.cli.options import Debug, Json, Quiet
from billhook.cli.search.options import ReportFile, Studies, StudyName, TrialNumber
from billhook.cli.search.study import read
from billhook.cli.terminal import Terminal


def report(
    studies: Studies,
    output: ReportFile = Path("search.html"),
    trial: TrialNumber = None,
    study_name: StudyName = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write an HTML page: the front, the way there, and what was chosen. STUDY may be FILE#NAME."""
    from billhook.report.search_html import write_search_html

    terminal = Terminal(as_json, quiet)
    records = []
    for place in studies:
        path, hash_, name = place.partition("#")
        records.append(read(path, name if hash_ else study_name))
    write_search_html(records, output, chosen=trial)
    terminal.data({"report": str(output)}, f"report: {output}")
