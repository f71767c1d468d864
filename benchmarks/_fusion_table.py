"""From single runs to the tables of docs/results/fusion.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

Row = Mapping[str, Any]


RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
ORDER = (
    "groups",
    "groups, uniform widths",
    "groups, shared out by cost",
    "groups, blocks may leave",
    "fused",
    "fused, dynamic",
)
MARKERS = ("o", "v", "^", "D", "*", "P")


def write_tables(runs: Sequence[Row], latencies: Sequence[Row], results: Path, docs: Path) -> None:
    """Write one JSONL file and one plot per network."""
    for network in sorted({r["network"] for r in runs}):
        own = [r for r in runs if r["network"] == network]
        timed = {_key(r): r for r in latencies if r["network"] == network}
        dense = {r["seed"]: r for r in own if r["method"] == "dense"}
        rows = _rows([r for r in own if r["method"] != "dense"], timed, dense)
        lines = [json.dumps(row) for row in [*rows, {"note": _note(dense)}]] if rows else []
        name = f"fusion_{network.replace('-', '_')}.jsonl"
        (results / name).write_text("".join(line + "\n" for line in lines))
        _plot(network, rows, docs / f"fusion_{network.replace('-', '_')}.svg")


def _rows(runs: Sequence[Row], timed: Mapping[Any, Row], dense: Mapping[int, Row]) -> list[dict[str, Any]]:
    cells: dict[tuple[str, float, int, str], list[Row]] = {}
    for run in runs:
        cells.setdefault((run["backend"], -run["latency"], ORDER.index(run["row"]), run["row"]), []).append(
            run
        )
    return [_cell(key, cells[key], timed, dense) for key in sorted(cells)]


def _cell(
    key: tuple[str, float, int, str], runs: Sequence[Row], timed: Mapping[Any, Row], dense: Mapping[int, Row]
) -> dict[str, Any]:
    backend, bound, _, row = key
    cell = {"runtime": backend, "bound": f"{-bound:.0%}", "pruning": row}
    own = [r for r in runs if "unreachable" not in r]
    if not own:
        return {**cell, "latency": "", "points lost": "cannot be met"}
    ratios = [timed[_key(r)]["ratio"] for r in own if _key(r) in timed]
    lost = [100 * (dense[r["seed"]]["test_accuracy"] - r["test_accuracy"]) for r in own]
    whole = dense[own[0]["seed"]]["cost"]
    return {
        **cell,
        "latency": f"{mean(ratios):.3f}" if ratios else "",
        "points lost": f"{mean(lost):.2f}",
        "each seed": ", ".join(f"{x:.2f}" for x in lost),
        "blocks gone": ", ".join(f"{r['blocks_gone']} of {r['blocks']}" for r in own),
        "MACs": f"{mean(r['cost']['macs'] / whole['macs'] for r in own):.3f}",
        "parameters": f"{mean(r['cost']['params'] / whole['params'] for r in own):.3f}",
    }


def _plot(network: str, rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw points lost over latency, one panel per runtime, one line per row."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "billhook"  # the same data give the same file
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(RUNTIMES), figsize=(11, 4.5), sharey=True)
    for axes, (runtime, title) in zip(panels, RUNTIMES.items(), strict=True):
        own = [r for r in rows if r["runtime"] == runtime and r["latency"]]
        for marker, pruning in zip(MARKERS, dict.fromkeys(r["pruning"] for r in own), strict=False):
            points = sorted(
                (float(r["latency"]), float(r["points lost"])) for r in own if r["pruning"] == pruning
            )
            axes.plot(*zip(*points, strict=True), marker=marker, label=pruning)
        axes.set_title(f"{network}, {title}")
        axes.set_xlabel("latency relative to the dense network")
        axes.grid(alpha=0.3)
    panels[0].invert_yaxis()
    panels[0].set_ylabel("points lost on the test images")
    if rows:
        panels[-1].legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _note(dense: Mapping[int, Row]) -> str:
    accuracy = ", ".join(f"{r['test_accuracy']:.2%}" for r in dense.values())
    seeds = ", ".join(map(str, dense))
    return (
        f"Fashion-MNIST, 10,000 test images; dense networks {accuracy} (seeds {seeds}). "
        "Latency relative to the dense network in the same runtime, float32, one thread, batch 1, time on "
        "the core, all rows of a runtime in turns. MACs and parameters before lowering."
    )


def _key(row: Row) -> tuple[Any, ...]:
    return (row["network"], row["latency"], row["backend"], row["row"], row["seed"])
