"""The HTML report: one file that holds everything and asks the network for nothing.

Names in a run directory come from models, recipes and file systems that may be hostile. Three fences: the
template escapes every text; figures travel as JSON and escape what Plotly would read as HTML; and a content
security policy allows only the two scripts whose hashes are in it, and no connection to anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from billhook.errors import InputError, StorageError
from billhook.report.comparison import CAVEAT, comparison
from billhook.report.figures import channels, distances, training, weights
from billhook.report.plotlyjs import plotlyjs
from billhook.report.scatter import accuracy_latency
from billhook.report.view import view
from billhook.run_record import Run


def write_html(runs: Sequence[Run], path: str | Path) -> Path:
    """Write the report of one run, or the comparison of several, and return its path.

    Args:
        runs: What `Run.load` returned; the order is kept.
        path: The HTML file; replaced if it exists. It appears whole or not at all.
    Raises:
        MissingExtraError: if plotly is not installed.
        StorageError: if the file cannot be written.
    """
    path = Path(path)
    content = html_report(runs).encode("utf-8", errors="replace")  # a lone surrogate in a name becomes "?"
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise StorageError(f"{path}: the report cannot be written: {e.strerror or e}") from None
    return path


def html_report(runs: Sequence[Run]) -> str:
    """Return the page as text, about 5 MB (nearly all of it plotly.js); see `write_html`."""
    if not runs:
        raise InputError("a report needs at least one run directory")
    page = files("billhook.report") / "page"
    style = (page / "style.css").read_text(encoding="utf-8")
    scripts = [_inline(plotlyjs()), _inline((page / "script.js").read_text(encoding="utf-8"))]
    views = [view(run) for run in runs]
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (page / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        policy=_policy(scripts),
        style=style,
        scripts=scripts,
        views=views,
        comparison=comparison(runs),
        caveat=CAVEAT,
        trajectories=[(run.results.name, run.results.trajectory) for run in runs],
        figures=_figures(runs),
    )


def _figures(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the plots by the name under which the template asks for them."""
    figures: dict[str, Any] = {}
    if len(runs) > 1:
        figures["all-path"] = accuracy_latency([r.results for r in runs])
    for i, run in enumerate(runs):
        figures[f"run-{i}-path"] = accuracy_latency([run.results])
        figures[f"run-{i}-channels"] = channels(run.layers)
        figures[f"run-{i}-weights"] = weights(run.layers)
        figures[f"run-{i}-distances"] = distances(run.results.distances)
        figures[f"run-{i}-training"] = training(run.results.history)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _policy(scripts: Sequence[str]) -> str:
    """Return the content security policy: these inline scripts and nothing else may run or load.

    Plotly sets styles in line, and draws an exported picture through data: and blob: addresses.
    """
    digests = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{d}'" for d in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _inline(script: str) -> str:
    """Return a script that can stand in a page: one kind of newline (or the hash differs), no closing tag."""
    return script.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")
