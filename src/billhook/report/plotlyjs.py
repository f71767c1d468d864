"""plotly.js, out of the optional library plotly: the only file that imports it."""

from __future__ import annotations

from billhook.errors import MissingExtraError


def plotlyjs() -> str:
    """Return the source of plotly.js, 4.8 MB, to be put into a page that then needs no network.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingExtraError("plotly", "report", "the HTML report") from None
    source: str = get_plotlyjs()
    return source
