"""What a study holds, read and written out."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from billhook.cli.terminal import Terminal

if TYPE_CHECKING:
    from billhook.report.search_record import SearchRecord

TOP = 10


def read(place: str, name: str | None) -> SearchRecord:
    """Return what the study at `place` holds now.

    Raises:
        StorageError: if there is none, or it cannot be read.
    """
    from billhook.report.search_record import SearchRecord
    from billhook.search.studies.place import Place
    from billhook.search.studies.study import Study

    with closing(Study.open(place, name or "search")) as study:
        return SearchRecord.of(study, str(Place.of(place)))


def shown(terminal: Terminal, place: str, name: str | None, top: int = TOP) -> None:
    """Write what the study at `place` holds now."""
    from billhook.report.search_tables import search_data, search_tables

    record = read(place, name)
    terminal.data(search_data(record), *search_tables(record, top))
