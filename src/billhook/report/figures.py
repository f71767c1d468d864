"""Plots of one run's layers and training, as plain Plotly figures: pure functions from records to JSON data.

No library is needed to make them. Colours are names of CSS variables, so one figure serves the light and the
dark page; `page/script.js` puts the values in. Texts are escaped, because Plotly reads them as HTML, in part.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from billhook.run_record import Distance, Epoch, LayerChange
from billhook.units import format_count

Figure = dict[str, Any]

MAX_LABEL = 30
BAR_HEIGHT = 26  # pixels per layer

_BARS: dict[str, Any] = {
    "barmode": "group",
    "bargap": 0.25,
    "bargroupgap": 0,
    "showlegend": False,
    "dragmode": False,
}
_XAXIS: dict[str, Any] = {"side": "top", "rangemode": "tozero", "fixedrange": True}


def channels(layers: Sequence[LayerChange]) -> Figure | None:
    """Return horizontal bars of output channels per layer, before and after; None without layers."""
    if not layers:
        return None
    rows = list(range(len(layers)))
    hover = [
        f"{escaped(x.layer)} ({escaped(x.kind)})<br>{x.before} → {x.after} channels ({_kept(x)} stay)"
        for x in layers
    ]
    common = {"type": "bar", "orientation": "h", "y": rows, "hovertext": hover, "hoverinfo": "text"}
    data = [
        {**common, "name": "original", "x": [x.before for x in layers], "marker": {"color": "var(--before)"}},
        {
            **common,
            "name": "compressed",
            "x": [x.after for x in layers],
            "marker": {"color": "var(--after)"},
            "text": [f"{x.after} of {x.before}" if x.after != x.before else "" for x in layers],
            "textposition": "outside",
            "constraintext": "none",
            "textfont": {"size": 11},
            "cliponaxis": False,
        },
    ]
    layout = {
        **_BARS,
        "height": 64 + BAR_HEIGHT * len(layers),
        "margin": {"l": 8, "r": 56, "t": 40, "b": 8},
        "xaxis": {**_XAXIS, "title": {"text": "output channels"}},
        "yaxis": _names(layers),
    }
    return {"data": data, "layout": layout, "config": {"displayModeBar": False}}


def weights(layers: Sequence[LayerChange]) -> Figure | None:
    """Return bars of how many of each layer's weights stay, in percent; None if no layer has a pattern."""
    shown = [x for x in layers if x.weights]
    if not any(x.pattern for x in shown):
        return None
    rows = list(range(len(shown)))
    shares = [100 * x.kept / x.weights for x in shown]
    hover = [
        f"{escaped(x.layer)} ({escaped(x.kind)})<br>{x.kept:,} of {x.weights:,} weights, "
        f"{escaped(x.pattern) or 'dense'}"
        for x in shown
    ]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "y": rows,
            "x": shares,
            "hovertext": hover,
            "hoverinfo": "text",
            "marker": {"color": ["var(--after)" if x.pattern else "var(--before)" for x in shown]},
            "text": [
                f"{share:.1f} % of {format_count(x.weights)}" for share, x in zip(shares, shown, strict=True)
            ],
            "textposition": "outside",
            "constraintext": "none",
            "textfont": {"size": 11},
            "cliponaxis": False,
        }
    ]
    layout = {
        **_BARS,
        "height": 64 + BAR_HEIGHT * len(shown),
        "margin": {"l": 8, "r": 112, "t": 40, "b": 8},
        "xaxis": {**_XAXIS, "range": [0, 100], "title": {"text": "weights kept (%)"}},
        "yaxis": _names(shown),
    }
    return {"data": data, "layout": layout, "config": {"displayModeBar": False}}


def training(history: Sequence[Epoch]) -> Figure | None:
    """Return validation accuracy above training loss, over epochs; None without history."""
    if not history:
        return None
    epochs = [e.epoch for e in history]
    accuracy = [None if e.val_accuracy is None else 100 * e.val_accuracy for e in history]
    common = {"type": "scatter", "mode": "lines+markers", "x": epochs}
    data = [
        {**common, "name": "validation accuracy (%)", "y": accuracy, "line": {"color": "var(--after)"}},
        {
            **common,
            "name": "training loss",
            "y": [e.train_loss for e in history],
            "yaxis": "y2",
            "line": {"color": "var(--accent-2)"},
        },
    ]
    layout = {
        "xaxis": {"title": {"text": "epoch"}, "anchor": "y2", "tickformat": "d"},
        "yaxis": {"title": {"text": "accuracy (%)"}, "domain": [0.54, 1]},
        "yaxis2": {"title": {"text": "training loss"}, "domain": [0, 0.46], "rangemode": "tozero"},
        "height": 420,
        "margin": {"l": 64, "r": 16, "t": 16, "b": 52},
        "showlegend": False,
        "hovermode": "x unified",
    }
    return {"data": data, "layout": layout}


def distances(history: Sequence[Distance]) -> Figure | None:
    """Return how near weights have come to their patterns, over steps; None unless there are two points.

    The axis is logarithmic: zero, which it cannot show, becomes a gap.
    """
    if len(history) < 2:
        return None
    common = {"type": "scatter", "mode": "lines+markers", "x": [d.step for d in history]}
    data = [
        {**common, "name": name, "y": [value or None for value in values], "line": {"color": f"var({color})"}}
        for name, values, color in (
            ("distance to the pattern", [d.primal for d in history], "--after"),
            ("change of the target", [d.dual for d in history], "--accent-2"),
        )
    ]
    layout = {
        "xaxis": {"title": {"text": "step"}, "tickformat": "d"},
        "yaxis": {"title": {"text": "relative to the weight"}, "type": "log", "exponentformat": "power"},
        "height": 300,
        "margin": {"l": 64, "r": 16, "t": 16, "b": 52},
        "legend": {"orientation": "h", "y": 1.15},
        "hovermode": "x unified",
    }
    return {"data": data, "layout": layout}


def _names(layers: Sequence[LayerChange]) -> dict[str, Any]:
    """Return the axis that names one layer per row, the first at the top."""
    return {
        "tickmode": "array",
        "tickvals": list(range(len(layers))),
        "ticktext": [label(x.layer) for x in layers],
        "range": [len(layers) - 0.5, -0.5],
        "automargin": True,
        "ticks": "outside",
        "ticklen": 6,
        "tickcolor": "rgba(0,0,0,0)",
        "fixedrange": True,
        "showgrid": False,
    }


def label(text: str) -> str:
    """Return a name as a label: its last characters, because these tell layers apart, and escaped."""
    return escaped(text if len(text) <= MAX_LABEL else "…" + text[1 - MAX_LABEL :])


def escaped(text: str) -> str:
    """Return a text that Plotly shows as it is."""
    return html.escape(text, quote=False)


def _kept(layer: LayerChange) -> str:
    return f"{layer.after / layer.before:.0%}" if layer.before else "–"
