"""A self-contained HTML page: a template of ours, plots, and a policy that lets nothing else in.

Names come from models, recipes and file systems that may be hostile. Three fences: the template escapes every
text; figures travel as JSON and escape what Plotly would read as HTML; and a content security policy allows
only the two scripts whose hashes are in it, and no connection to anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from billhook.errors import StorageError
from billhook.report.figures import Figure
from billhook.report.plotlyjs import plotlyjs


def rendered(template: str, figures: Mapping[str, Figure | None], **values: Any) -> str:
    """Return a page as text, about 5 MB (nearly all of it plotly.js).

    Args:
        template: File in `report/page`.
        figures: By the name under which the template asks for them; None: there is no such plot.
        values: What else the template asks for.
    Raises:
        MissingExtraError: if plotly is not installed.
    """
    page = files("billhook.report") / "page"
    scripts = [_inline(plotlyjs()), _inline((page / "script.js").read_text(encoding="utf-8"))]
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (page / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        policy=_policy(scripts),
        style=(page / "style.css").read_text(encoding="utf-8"),
        scripts=scripts,
        figures={name: figure for name, figure in figures.items() if figure is not None},
        **values,
    )


def write_page(text: str, path: Path) -> Path:
    """Write a page and return its path; it appears whole or not at all. Raises `StorageError`."""
    content = text.encode("utf-8", errors="replace")  # a lone surrogate in a name becomes "?"
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise StorageError(f"{path}: the report cannot be written: {e.strerror or e}") from None
    return path


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
