"""From single runs to the tables and plots of docs/results/methods.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks._methods_run import AT_INITIALISATION, SCRATCH

Row = dict[str, Any]
CONTROLS = ("random", *SCRATCH)
LONGER = "dense_longer"

# What the papers report nearest to half of the operations; each on other data, so not to be compared.
PUBLISHED = {
    "fpgm": "ResNet-56, CIFAR-10: 93.59 → 93.49 at 47.4 % of the FLOPs",
    "l1": "ResNet-34, ImageNet: 73.23 → 72.17 at 75.8 % of the FLOPs",
    "hrank": "ResNet-56, CIFAR-10: 93.26 → 93.17 at 50 % of the FLOPs",
    "bn_scale": "ResNet-164, CIFAR-10: 94.75 → 93.81 at 60 % of the channels removed",
    "network_slimming": "ResNet-164, CIFAR-10: 94.75 → 93.81 at 60 % of the channels removed",
    "thinet": "ResNet-50, ImageNet: 75.30 → 74.03 at 63 % of the FLOPs (TPAMI)",
    "gator": "ResNet-56, CIFAR-10: 93.63 → 93.58 at 56.6 %, 93.14 at 45.4 % of the FLOPs",
    "soft": "ResNet-56, CIFAR-10: 93.59 → 93.36 at 47.4 % of the FLOPs",
    "spp": "ResNet-50, ImageNet: −0.8 top-5 at 50 % of the FLOPs",
    "greg1": "ResNet-56, CIFAR-10: 93.36 → 93.18 at 39.2 % of the FLOPs",
    "greg2": "ResNet-56, CIFAR-10: 93.36 → 93.36 at 39.2 % of the FLOPs",
    "tpp": "ResNet-56, CIFAR-10, half of the filters: 93.46",
    "orthp": "ResNet-56, CIFAR-10, half of the filters: 93.36 (L1 alone: 93.51)",
}


def write_tables(runs: Sequence[Row], latencies: Sequence[Row], results: Path, docs: Path) -> None:
    """Write one JSONL file per network and budget, and one plot per network."""
    speed = {(r["network"], r["macs"], r["row"]): float(r["speed_up"]) for r in latencies}
    for network in sorted({r["network"] for r in runs}):
        dense = [r for r in runs if r["network"] == network and r["method"] == "dense"]
        if not dense:
            continue
        points = []
        for macs in sorted({r["macs"] for r in runs if r["macs"] < 1}, reverse=True):
            longer = [r for r in runs if r["network"] == network and r["method"] == LONGER]
            chosen = [r for r in runs if r["network"] == network and r["macs"] == macs] + longer
            table = rows(chosen, dense, speed)
            lines = [json.dumps(row) for row in [*table, {"note": note(dense)}]]
            name = f"methods_{network.replace('-', '_')}_{round(100 * macs)}.jsonl"
            (results / name).write_text("".join(line + "\n" for line in lines))
            points += [(macs, row) for row in table]
        plot(network, points, dense, docs / f"methods_{network.replace('-', '_')}.svg")


def rows(runs: Sequence[Row], dense: Sequence[Row], speed: dict[tuple[str, float, str], float]) -> list[Row]:
    """Return one row per method, best first."""
    by_row: dict[str, list[Row]] = {}
    for run in runs:
        by_row.setdefault(run["row"], []).append(run)
    baseline = {r["seed"]: r["test_accuracy"] for r in dense}
    whole = dense[0]["cost"]
    accuracy = {name: [r["test_accuracy"] for r in found] for name, found in by_row.items()}
    table = []
    for name, found in by_row.items():
        change = [r["test_accuracy"] - baseline[r["seed"]] for r in found]
        beaten_by = [
            c for c in CONTROLS if c in accuracy and c != name and mean(accuracy[name]) <= mean(accuracy[c])
        ]
        first = found[0]
        seconds = [r["decision_seconds"] for r in found if "decision_seconds" in r]
        ratio = speed.get((first["network"], first["macs"], name))
        table.append(
            {
                "method": name,
                "accuracy (%)": _percent(accuracy[name]),
                "points lost": round(-100 * mean(change), 2),
                "seeds": len(found),
                "MACs": f"{mean(r['cost']['macs'] for r in found) / whole['macs']:.1%}",
                "params": f"{mean(r['cost']['params'] for r in found) / whole['params']:.1%}",
                "ONNX Runtime speed-up": "" if ratio is None else f"{ratio:.2f}×",
                "decision (s)": round(mean(seconds), 1) if seconds else "",
                "no better than": ", ".join(beaten_by)
                or ("" if name in (*CONTROLS, "dense_longer") else "—"),
                "published, on other data": PUBLISHED.get(name, ""),
            }
        )
    return sorted(table, key=lambda row: -mean(accuracy[row["method"]]))


def _percent(values: Sequence[float]) -> str:
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.2f}{spread}"


def note(dense: Sequence[Row]) -> str:
    """Return the conditions that all rows share."""
    protocol = dense[0]["protocol"]
    value = mean(r["test_accuracy"] for r in dense)
    at_initialisation = ", ".join(f"`{m}`" for m in AT_INITIALISATION)
    return (
        f"Fashion-MNIST, 10,000 test images, each network scored once; dense: {value:.2%} ({len(dense)} "
        f"seeds, {protocol['dense_epochs']} epochs). Every method: {protocol['epochs']} epochs of batch 128, "
        f"{protocol['precision']}, one thread; methods that train decide in the first "
        f"{protocol['deciding']:.0%} of them. ± is the standard deviation over seeds. `scratch`: the widths "
        f"of `l2, uniform widths` with random weights and the same epochs; `scratch_long` and "
        f"{at_initialisation} (random weights, too) also get the epochs of the dense network. Points lost: "
        "against the dense network of the same seed; `dense_longer` is that network, trained on for as many "
        "epochs as the methods have. Criteria look at 512 images (SNIP, GraSP: 64), `iterative taylor` at up "
        "to 30 batches a round. Speed-up: ONNX Runtime, float32, one thread, batch 1, "
        "core time, interleaved with the dense network, seed 0. Decision: seconds on a shared core, training "
        "included."
    )


def plot(network: str, points: Sequence[tuple[float, Row]], dense: Sequence[Row], path: Path) -> None:
    """Draw accuracy over speed-up, one dot per method and budget."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "billhook"  # the same data give the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 6))
    for macs, marker, colour in ((0.5, "o", "#00796b"), (0.25, "s", "#e65100")):
        chosen = [
            (float(r["ONNX Runtime speed-up"].rstrip("×")), float(r["accuracy (%)"].split()[0]), r["method"])
            for m, r in points
            if m == macs and r["ONNX Runtime speed-up"]
        ]
        if not chosen:
            continue
        x, y, _ = zip(*chosen, strict=True)
        axes.scatter(x, y, marker=marker, color=colour, label=f"{macs:.0%} of the MACs", s=22)
        for one in chosen:
            axes.annotate(one[2], one[:2], xytext=(3, 3), textcoords="offset points", fontsize=6)
    axes.axhline(100 * mean(r["test_accuracy"] for r in dense), color="grey", linestyle=":", label="dense")
    axes.set_xlabel("speed-up in ONNX Runtime (one thread, batch 1, float32)")
    axes.set_ylabel("accuracy on the test images (%)")
    axes.set_title(f"{network} on Fashion-MNIST")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
