"""Pictures of docs/results/search.md: the best so far over the evaluations, and fronts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = Mapping[str, Any]
MARKERS = ("o", "v", "^", "D")


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "billhook"  # the same data give the same file
    from matplotlib import pyplot

    return pyplot


def draw_best(runs: Sequence[Row], path: Path) -> None:
    """Draw the best accuracy so far, mean over the seeds: a panel for each network and budget.

    Methods that judge by weights of their own are left out: their accuracies are about other networks.
    """
    own = [r for r in runs if r.get("judged_by") == ["inherited"]]
    panels = list(dict.fromkeys((r["network"], r["macs"]) for r in own))
    if not panels:
        path.unlink(missing_ok=True)
        return
    pyplot = _pyplot()
    figure, all_axes = pyplot.subplots(1, len(panels), figsize=(4.2 * len(panels), 4.2), squeeze=False)
    for axes, (network, macs) in zip(all_axes[0], panels, strict=True):
        here = [r for r in own if (r["network"], r["macs"]) == (network, macs)]
        for row in dict.fromkeys(r["row"] for r in here):
            curves = [np.maximum.accumulate(r["accuracies"]) for r in here if r["row"] == row]
            shortest = min(map(len, curves))
            mean = 100 * np.mean([c[:shortest] for c in curves], axis=0)
            axes.plot(np.arange(1, shortest + 1), mean, label=row)
            start = mean[min(9, shortest - 1)]
            axes.set_ylim(bottom=min(start, axes.get_ylim()[0]) if row != here[0]["row"] else start)
        axes.set_title(f"{network}, {macs:.0%} of the MACs")
        axes.set_xlabel("evaluations")
        axes.grid(alpha=0.3)
    all_axes[0][0].set_ylabel("best so far, % (without fine-tuning)")
    all_axes[0][0].legend()
    _save(figure, path)


def draw_fronts(runs: Sequence[Row], path: Path) -> None:
    """Draw the fronts on the images that judged no candidate: a panel for each seed."""
    seeds = sorted({r["seed"] for r in runs})
    if not seeds:
        path.unlink(missing_ok=True)
        return
    pyplot = _pyplot()
    figure, all_axes = pyplot.subplots(1, len(seeds), figsize=(5.5 * len(seeds), 4.2), squeeze=False)
    for axes, seed in zip(all_axes[0], seeds, strict=True):
        here = [r for r in runs if r["seed"] == seed]
        for marker, run in zip(MARKERS, here, strict=False):
            points = sorted((100 * p["latency"], 100 * p["accuracy"]) for p in run["front"])
            axes.plot(*zip(*points, strict=True), marker=marker, markersize=4, label=run["row"])
        worst = 100 * (1 - here[0]["reference"][1])
        axes.set_ylim(bottom=worst)
        axes.set_title(f"seed {seed}")
        axes.set_xlabel("latency, % of the dense network")
        axes.grid(alpha=0.3)
    all_axes[0][0].set_ylabel("accuracy, % (without fine-tuning)")
    all_axes[0][0].legend()
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    _pyplot().close(figure)
