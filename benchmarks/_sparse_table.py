"""From single runs to the tables of docs/results/sparse.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

Row = Mapping[str, Any]

LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95)
METHODS = {"magnitude": "one-shot", "gradual": "gradual", "admm": "ADMM", "reweighted": "reweighted"}
PATTERNS = {
    "unstructured": "unstructured",
    "4x1": "4×1",
    "8x1": "8×1",
    "8x4": "8×4",
    "kernel_pattern": "4 of 9 + connectivity",
    "filter": "filter",
    "column": "column",
    "4x1, shared out": "4×1, shared out by time",
    "rules": "mapping by rules",
}
MARKERS = ("o", "v", "^", "D", "*", "P")


def write_tables(runs: Sequence[Row], searches: Sequence[Row], results: Path, docs: Path) -> None:
    """Write one JSONL file per table, and one plot per network of the grid."""
    dense = {(r["network"], r["data"], r["seed"]): r for r in runs if r["method"] == "dense"}
    for network in sorted({r["network"] for r in runs if r["part"] == "grid"}):
        own = [r for r in runs if r["network"] == network and r["part"] == "grid" and r["method"] != "dense"]
        rows = _grid(own, dense)
        name = f"sparse_{network.replace('-', '_')}"
        _write(results / f"{name}.jsonl", rows, _note(own, dense))
        _plot(network, rows, docs / f"{name}.svg")
    parts = (("unification", _unification), ("lenet", _lenet), ("mapping", _mapping), ("long", _long))
    for part, make in parts:
        own = [r for r in runs if r["part"].split()[0] == part and r["method"] != "dense"]
        _write(results / f"sparse_{part}.jsonl", make(own, dense), _note(own, dense))
    _write(results / "sparse_search.jsonl", _search(searches), "")


def _grid(runs: Sequence[Row], dense: Mapping[Any, Row]) -> list[dict[str, Any]]:
    rows = []
    for pattern, words in PATTERNS.items():
        for method, name in METHODS.items():
            own = [r for r in runs if r["row"] == pattern and r["method"] == method]
            if own:
                cells = {f"{level:.0%}": _points(_at(own, level), dense) for level in LEVELS}
                rows.append({"pattern": words, "method": name, **cells})
    return rows


def _at(runs: Iterable[Row], level: float) -> list[Row]:
    """Return the runs of a level; a pattern that cannot reach the lowest one counts with what it can."""
    return [r for r in runs if min(LEVELS, key=lambda x: abs(x - r["sparsity"])) == level]


def _points(runs: Sequence[Row], dense: Mapping[Any, Row]) -> str:
    return f"{mean(_lost(r, dense) for r in runs):.2f}" if runs else ""


def _lost(run: Row, dense: Mapping[Any, Row]) -> float:
    before = dense[run["network"], run["data"], run["seed"]]["test_accuracy"]
    return 100 * float(before - run["test_accuracy"])


def _unification(runs: Sequence[Row], dense: Mapping[Any, Row]) -> list[dict[str, Any]]:
    rows = [
        {
            "network": network,
            "row": row,
            "method": METHODS[method],
            "zeros": f"{mean(r['weight_sparsity'] for r in own):.1%}",
            "stored": f"{mean(r['stored_bytes'] / (4 * r['weights']) for r in own):.2%}",
            "points lost": _points(own, dense),
        }
        for (network, row, method), own in _together(runs, "network", "row", "method").items()
    ]
    return sorted(rows, key=lambda r: (r["network"], -round(float(r["stored"][:-1])), r["row"]))


def _lenet(runs: Sequence[Row], dense: Mapping[Any, Row]) -> list[dict[str, Any]]:
    return [
        {
            "data": data,
            "method": METHODS.get(method, "dense, as many epochs"),
            "weights": f"{own[0]['weights']:,} → {own[0]['nonzeros']:,}" if "weights" in own[0] else "all",
            "times fewer": f"{own[0]['weights'] / own[0]['nonzeros']:.1f}" if "weights" in own[0] else "",
            "points lost": _points(own, dense),
        }
        for (data, method, _), own in _together(runs, "data", "method", "sparsity").items()
    ]


def _long(runs: Sequence[Row], dense: Mapping[Any, Row]) -> list[dict[str, Any]]:
    return [
        {
            "method": name,
            **{
                f"{level:.0%}": _points(
                    [r for r in runs if r["method"] == method and r["sparsity"] == level], dense
                )
                for level in LEVELS[2:]
            },
        }
        for method, name in METHODS.items()
        if any(r["method"] == method for r in runs)
    ]


def _mapping(runs: Sequence[Row], dense: Mapping[Any, Row]) -> list[dict[str, Any]]:
    return [
        {
            "network": network,
            "modelled latency": f"{float(part.split()[1]):.0%}",
            "row": PATTERNS[row],
            "zeros": f"{mean(r['weight_sparsity'] for r in own):.1%}",
            "points lost": _points(own, dense),
        }
        for (network, part, row), own in sorted(_together(runs, "network", "part", "row").items())
    ]


def _search(searches: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {
            "network": r["network"],
            "row": name,
            "evaluations": r[name]["evaluations"],
            "reward": f"{r[name]['reward']:.4f}",
            "accuracy without training": f"{r[name]['accuracy']:.2%}",
            "modelled latency": f"{r[name]['latency']:.1%}",
        }
        for r in searches
        for name in ("search", "random")
    ]


def _together(runs: Sequence[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for run in runs:
        found.setdefault(tuple(run[n] for n in names), []).append(run)
    return found


def _write(path: Path, rows: Sequence[Mapping[str, Any]], note: str) -> None:
    if not rows:
        path.unlink(missing_ok=True)  # the page then says that nothing has been measured yet
        return
    lines = [json.dumps(row) for row in rows]
    if rows and note:
        lines.append(json.dumps({"note": note}))
    path.write_text("".join(line + "\n" for line in lines))


def _note(runs: Sequence[Row], dense: Mapping[Any, Row]) -> str:
    used = {k: r for k, r in dense.items() if k in {(x["network"], x["data"], x["seed"]) for x in runs}}
    networks = ", ".join(f"{n} on {d} {r['test_accuracy']:.2%} (seed {s})" for (n, d, s), r in used.items())
    return f"Points lost on the test images against the dense networks: {networks}."


def _plot(network: str, rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw points lost over sparsity: one panel per method, one line per pattern."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "billhook"  # the same data give the same file
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(METHODS), figsize=(15, 4.2), sharey=True)
    for axes, method in zip(panels, METHODS.values(), strict=True):
        own = [r for r in rows if r["method"] == method]
        for marker, row in zip(MARKERS, own, strict=False):
            points = [(100 * x, float(row[f"{x:.0%}"])) for x in LEVELS if row[f"{x:.0%}"]]
            if points:
                axes.plot(*zip(*points, strict=True), marker=marker, label=row["pattern"])
        axes.set_title(f"{network}, {method}")
        axes.set_xlabel("zeros, %")
        axes.grid(alpha=0.3)
    panels[0].invert_yaxis()
    panels[0].set_ylabel("points lost on the test images")
    if rows:
        panels[0].legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
