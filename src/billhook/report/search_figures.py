"""Plots of searches as plain Plotly figures (see `figures`): the front, the way there, what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from billhook.allocate.budget import format_value
from billhook.report.figures import BAR_HEIGHT, Figure, escaped, label
from billhook.report.scatter import PALETTE
from billhook.report.search_record import GeneRecord, SearchRecord
from billhook.report.values import TITLES
from billhook.search.studies.trial import Trial

SHOWN_GENES = 16  # of a trial, in the text beside the mouse
FEW = 4  # of the best trials beside the chosen one in the picture of policies


def front(records: Sequence[SearchRecord], chosen: Trial | None = None) -> Figure | None:
    """Return accuracy over cost: every trial, the front of each search, the limit and the chosen point.

    Costs are relative to the original's, so that searches lie over each other. None without trials.

    Args:
        records: Searches with the same cost.
        chosen: Trial of the first search to be marked.
    """
    shown = [r for r in records if r.trials]
    if not shown:
        return None
    traces: list[dict[str, Any]] = []
    for i, record in enumerate(shown):
        colour, name = _colour(i), escaped(record.title)
        traces.append(_points(record, record.trials, f"{name}: trials", colour, size=6, opacity=0.35))
        line = _points(record, record.front, f"{name}: front", colour, size=8, opacity=1.0)
        traces.append({**line, "mode": "lines+markers", "line": {"color": colour, "width": 2, "shape": "hv"}})
    if chosen is not None and chosen in shown[0].trials:
        star = _points(shown[0], [chosen], "chosen", "var(--accent-2)", size=17, opacity=1.0)
        star["marker"] |= {"symbol": "star", "line": {"color": "var(--raised)", "width": 1}}
        traces.append(star)
    if shown[0].accuracy is not None:
        traces.append(_original(shown[0], shown[0].accuracy))
    metric = shown[0].metric
    limit = shown[0].limits.get(metric)
    return {
        "data": traces,
        "layout": {
            "xaxis": {
                "title": {"text": f"{TITLES[metric]} (% of the original)"},
                "zeroline": False,
            },
            "yaxis": {"title": {"text": "accuracy before fine-tuning (%)"}, "zeroline": False},
            "height": 460,
            "margin": {"l": 64, "r": 16, "t": 28, "b": 52},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            "hovermode": "closest",
            **({"shapes": [_limit(100 * limit / shown[0].original[metric])]} if limit else {}),
        },
    }


def progress(records: Sequence[SearchRecord]) -> Figure | None:
    """Return the best accuracy within the budget over trials, above the hypervolume; None without trials."""
    shown = [r for r in records if r.trials]
    if not shown:
        return None
    traces = []
    for i, record in enumerate(shown):
        common: dict[str, Any] = {
            "type": "scatter",
            "mode": "lines",
            "x": [t.number + 1 for t in record.trials],
            "line": {"color": _colour(i), "shape": "hv"},
            "name": escaped(record.title),
            "legendgroup": str(i),
        }
        best = [None if a is None else 100 * a for a in record.best_so_far()]
        traces.append({**common, "y": best})
        traces.append({**common, "y": record.volumes(), "yaxis": "y2", "showlegend": False})
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "trials"}, "anchor": "y2", "tickformat": "d", "rangemode": "tozero"},
        "yaxis": {"title": {"text": "best accuracy (%)"}, "domain": [0.54, 1]},
        "yaxis2": {"title": {"text": "hypervolume"}, "domain": [0, 0.46]},
        "height": 460,
        "margin": {"l": 64, "r": 16, "t": 28, "b": 52},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "showlegend": len(shown) > 1,
        "hovermode": "x unified",
    }
    return {"data": traces, "layout": layout}


def policy(record: SearchRecord, kind: str, chosen: Trial | None) -> Figure | None:
    """Return what stays of every group or tensor: bars of the chosen trial, marks of the next best.

    Args:
        record: The search.
        kind: "channels" or "density".
        chosen: The trial of the bars.
    """
    places = [i for i, gene in enumerate(record.genes) if gene.kind == kind]
    if chosen is None or not places:
        return None
    genes = [record.genes[i] for i in places]
    rows = list(range(len(genes)))
    shares = [100 * record.kept(chosen)[i] for i in places]
    values = [record.genes[i].values[chosen.genes[i]] for i in places]
    words = [gene_value(g, v) for g, v in zip(genes, values, strict=True)]
    bars = {
        "type": "bar",
        "orientation": "h",
        "name": f"trial {chosen.number}",
        "y": rows,
        "x": shares,
        "marker": {"color": "var(--after)"},
        "text": words,
        "textposition": "inside",
        "insidetextanchor": "start",
        "constraintext": "none",
        "textfont": {"size": 11, "color": "var(--raised)"},
        "hovertext": [f"{escaped(g.target)}<br>{w}" for g, w in zip(genes, words, strict=True)],
        "hoverinfo": "text",
    }
    dots = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": f"trial {other.number}",
            "y": rows,
            "x": [100 * record.kept(other)[i] for i in places],
            "marker": {"color": _colour(n + 1), "size": 8, "symbol": "line-ns-open", "line": {"width": 2}},
            "hovertext": [f"trial {other.number}: {100 * other.accuracy:.2f} %"] * len(rows),
            "hoverinfo": "text",
        }
        for n, other in enumerate(next_best(record, chosen))
    ]
    unit = "channels kept (%)" if kind == "channels" else "weights kept (%)"
    layout: dict[str, Any] = {
        "bargap": 0.25,
        "dragmode": False,
        "height": 64 + 28 + BAR_HEIGHT * len(rows),
        "margin": {"l": 8, "r": 24, "t": 68, "b": 8},
        "legend": {"orientation": "h", "y": 1, "yref": "container", "yanchor": "top", "x": 0},
        "xaxis": {"side": "top", "range": [0, 102], "fixedrange": True, "title": {"text": unit}},
        "yaxis": {
            "tickmode": "array",
            "tickvals": rows,
            "ticktext": [label(g.target) for g in genes],
            "range": [len(rows) - 0.5, -0.5],
            "automargin": True,
            "fixedrange": True,
            "showgrid": False,
        },
    }
    return {"data": [bars, *dots], "layout": layout, "config": {"displayModeBar": False}}


def next_best(record: SearchRecord, chosen: Trial) -> list[Trial]:
    """Return the most accurate other trials of other genes within the limits, best first."""
    others = [t for t in record.ranked() if t.genes != chosen.genes]
    return others[:FEW]


def _points(
    record: SearchRecord, trials: Sequence[Trial], name: str, colour: str, *, size: int, opacity: float
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [100 * record.share(t) for t in trials],
        "y": [100 * t.accuracy for t in trials],
        "marker": {"color": colour, "size": size, "opacity": opacity},
        "hovertext": [_hover(record, t) for t in trials],
        "hoverinfo": "text",
    }


def _original(record: SearchRecord, accuracy: float) -> dict[str, Any]:
    text = f"original: {100 * accuracy:.2f} %, {format_value(record.metric, record.original[record.metric])}"
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "original",
        "x": [100.0],
        "y": [100 * accuracy],
        "marker": {"color": "var(--before)", "size": 12, "symbol": "square"},
        "hovertext": [text],
        "hoverinfo": "text",
    }


def _hover(record: SearchRecord, trial: Trial) -> str:
    cost = format_value(record.metric, trial.costs[record.metric])
    lines = [
        f"<b>trial {trial.number}</b> of {escaped(record.title)}",
        f"{100 * trial.accuracy:.2f} %, {cost} ({record.share(trial):.1%})",
    ]
    pairs = list(zip(record.genes, trial.genes, strict=True))
    lines += [f"{label(gene.target)}: {gene_value(gene, gene.values[i])}" for gene, i in pairs[:SHOWN_GENES]]
    return "<br>".join([*lines, *(["…"] if len(pairs) > SHOWN_GENES else [])])


def gene_value(gene: GeneRecord, value: float) -> str:
    """Return a choice in words: "12 of 16", or "40 %" of the weights."""
    return f"{value:.0f} of {gene.values[-1]:.0f}" if gene.kind == "channels" else f"{100 * value:.0f} %"


def _limit(share: float) -> dict[str, Any]:
    line = {"color": "var(--accent-2)", "width": 1.5, "dash": "dash"}
    return {"type": "line", "x0": share, "x1": share, "yref": "paper", "y0": 0, "y1": 1, "line": line}


def _colour(index: int) -> str:
    return f"var(--run-{index % PALETTE + 1})"
