"""The accuracy-latency plot, of one run or of several, as a plain Plotly figure (see `figures`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from billhook.report.figures import Figure, label
from billhook.run_record import Results, TrajectoryPoint

PALETTE = 8  # run colours the style sheet has: --run-1 … --run-8
LABELLED = 4  # a way of up to so many states is labelled in full


def accuracy_latency(runs: Sequence[Results]) -> Figure | None:
    """Return accuracy over latency: the whole way of one run, or the ends of several and their Pareto front.

    Where there are several, the states on the way are one more trace that the legend switches on: between
    pruning and fine-tuning the accuracy may be so low that the ends could not be told apart.

    None if no run has a point with both values.
    """
    paths = [(run.name, _known(run.trajectory)) for run in runs]
    points = [p for _, path in paths for p in path]
    if not points:
        return None
    scale, unit = _time_unit(max(p.latency for p in points))
    paths = [(n, [replace(p, latency=p.latency / scale) for p in path]) for n, path in paths]
    traces = [_way(paths[0][1], unit)] if len(runs) == 1 else _ends(paths, unit)
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": f"latency ({unit})"}, "zeroline": False},
        "yaxis": {"title": {"text": "accuracy (%)"}, "zeroline": False},
        "height": 420,
        "margin": {"l": 64, "r": 16, "t": 28, "b": 52},
        "showlegend": len(runs) > 1,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
    }
    if len(runs) == 1:
        layout["xaxis"] |= _padded([p.latency for p in paths[0][1]])
        layout["yaxis"] |= _padded([p.accuracy for p in paths[0][1]])
    return {"data": traces, "layout": layout}


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (latency, accuracy) points which no other point beats in both, by rising latency."""
    front: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


@dataclass(frozen=True)
class _Point:
    """A state with both values: latency in the plot's unit, accuracy in percent."""

    label: str
    latency: float
    accuracy: float


def _known(trajectory: Sequence[TrajectoryPoint]) -> list[_Point]:
    return [
        _Point(label(p.label), p.latency, 100 * p.accuracy)
        for p in trajectory
        if p.latency is not None and p.accuracy is not None
    ]


def _way(path: Sequence[_Point], unit: str) -> dict[str, Any]:
    """Return one run's states, joined in order; the first two and the last are labelled."""
    last = len(path) - 1
    texts = [f"{p.label}<br>{_values(p, unit)}" for p in path]
    shown = {0, 1, last} if len(path) > LABELLED else set(range(len(path)))
    positions = {0: "top left", last: "top right"}
    return {
        **_dots(path, [_stage_colour(i, last) for i in range(len(path))], texts),
        "mode": "lines+markers+text",
        "text": [text if i in shown else "" for i, text in enumerate(texts)],
        "textposition": [positions.get(i, "bottom right") for i in range(len(path))],
        "line": {"color": "var(--muted)", "width": 1.5, "dash": "dot"},
    }


def _ends(paths: Sequence[tuple[str, list[_Point]]], unit: str) -> list[dict[str, Any]]:
    """Return the Pareto front, a line from start to end per run, and the states between them, hidden."""
    front = pareto_front([(p.latency, p.accuracy) for _, path in paths for p in path])
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "x": [x for x, _ in front],
            "y": [y for _, y in front],
            "line": {"color": "var(--muted)", "width": 2, "shape": "hv"},
            "hoverinfo": "skip",
        }
    ]
    between: list[tuple[_Point, str, str]] = []
    for i, (name, path) in enumerate((label(n), path) for n, path in paths):
        if not path:
            continue
        colour = f"var(--run-{i % PALETTE + 1})"
        ends = [path[-1], path[0]][: len(path)]  # the end first: the legend shows the first point's colour
        hover = [f"{name}: {p.label}<br>{_values(p, unit)}" for p in path]
        between += [(p, colour, text) for p, text in zip(path[1:-1], hover[1:-1], strict=True)]
        traces.append(
            {
                **_dots(ends, [colour, "var(--before)"][: len(ends)], [hover[-1], hover[0]][: len(ends)]),
                "mode": "lines+markers+text",
                "name": name,
                "text": [name, ""][: len(ends)],
                "textposition": "top center",
                "line": {"color": colour, "width": 1, "dash": "dot"},
            }
        )
    if between:
        points, colours, texts = zip(*between, strict=True)
        way = {
            **_dots(points, colours, texts),
            "mode": "markers",
            "name": "on the way",
            "visible": "legendonly",
        }
        traces.append(way)
    return traces


def _dots(points: Sequence[_Point], colours: Sequence[str], hover: Sequence[str]) -> dict[str, Any]:
    ends = {0, len(points) - 1}
    return {
        "type": "scatter",
        "x": [p.latency for p in points],
        "y": [p.accuracy for p in points],
        "marker": {
            "size": [14 if i in ends else 9 for i in range(len(points))],
            "color": list(colours),
            "opacity": 1,
            "line": {"color": "var(--raised)", "width": 1},
        },
        "hovertext": list(hover),
        "hoverinfo": "text",
        "cliponaxis": False,
    }


def _values(point: _Point, unit: str) -> str:
    return f"{point.latency:.3g} {unit}, {point.accuracy:.2f} %"


def _stage_colour(index: int, last: int) -> str:
    return "var(--before)" if index == 0 else "var(--after)" if index == last else "var(--accent-2)"


def _padded(values: Sequence[float]) -> dict[str, Any]:
    low, high = min(values), max(values)
    pad = 0.2 * (high - low) or 0.1 * abs(high) or 1.0
    return {"range": [low - pad, high + pad]}


def _time_unit(longest: float) -> tuple[float, str]:
    return next(((s, u) for s, u in ((1.0, "s"), (1e-3, "ms")) if longest >= s), (1e-6, "µs"))
