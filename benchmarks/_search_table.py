"""From single runs to the tables and pictures of docs/results/search.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks._search_plots import draw_best, draw_fronts

Row = Mapping[str, Any]

BUDGET_PARTS = ("budget", "shared", "large")


def write_tables(
    runs: Sequence[Row], timings: Sequence[Row], speeds: Sequence[Row], results: Path, docs: Path
) -> None:
    """Write one JSONL file per table, and the pictures."""
    dense = {(r["network"], r["seed"]): r for r in runs if r["method"] == "dense"}
    budget = [r for r in runs if r["part"] in BUDGET_PARTS]
    for network in ("resnet-20", "small-vgg", "resnet-56"):
        own = [r for r in budget if r["network"] == network]
        name = f"search_{network.replace('-', '_')}"
        _write(results / f"{name}.jsonl", _budget(own, dense), _dense_note(own, dense))
    fronts = [r for r in runs if r["part"] == "front"]
    _write(results / "search_front.jsonl", _fronts(fronts), _front_note(fronts))
    _write(results / "search_timing.jsonl", _timing(timings), "")
    _write(results / "search_speed.jsonl", _speed(speeds), "")
    _write(results / "search_transfer.jsonl", _transfer([r for r in runs if r["part"] == "transfer"]), "")
    draw_best([r for r in budget if r["part"] == "budget"], docs / "search_best.svg")
    draw_fronts(fronts, docs / "search_fronts.svg")


def _budget(runs: Sequence[Row], dense: Mapping[Any, Row]) -> list[dict[str, Any]]:
    """Return a row for each budget and method: means over the seeds, and each seed."""
    rows = []
    for macs in sorted({r["macs"] for r in runs}, reverse=True):
        here = [r for r in runs if r["macs"] == macs]
        for row in dict.fromkeys(r["row"] for r in here):
            own = sorted((r for r in here if r["row"] == row), key=lambda r: r["seed"])
            beaten = {
                against: _difference(own, [r for r in here if r["row"] == against], "before_accuracy")
                for against in ("uniform", "random")
            }
            rows.append(
                {
                    "MACs": f"{macs:.0%}",
                    "method": row,
                    "evaluations": own[0].get("evaluations", 0),
                    "before": _percent(r["before_accuracy"] for r in own),
                    "best five": _percent(_five(r) for r in own),
                    "against uniform": beaten["uniform"],
                    "against random": beaten["random"],
                    "after": _percent(r["after_accuracy"] for r in own),
                    "test": _percent(r["test_accuracy"] for r in own),
                    "points lost": _lost(own, dense),
                    "minutes": f"{mean(r['search_seconds'] for r in own) / 60:.1f}",
                }
            )
    return rows


def _five(run: Row) -> float:
    """Return the mean accuracy of the best candidates of a search before any training."""
    return mean(run.get("best_accuracies") or [run["before_accuracy"]])


def _lost(runs: Iterable[Row], dense: Mapping[Any, Row]) -> str:
    lost = [dense[r["network"], r["seed"]]["test_accuracy"] - r["test_accuracy"] for r in runs]
    return f"{100 * mean(lost):.2f}"


def _difference(own: Sequence[Row], others: Sequence[Row], what: str) -> str:
    """Return the mean difference in points over the seeds that both have."""
    of = {r["seed"]: r[what] for r in others}
    found = [r[what] - of[r["seed"]] for r in own if r["seed"] in of]
    return f"{100 * mean(found):+.2f}" if found else ""


def _percent(values: Iterable[float]) -> str:
    """Return the mean, and in brackets every value if there are several."""
    found = list(values)
    each = f" ({', '.join(f'{100 * v:.2f}' for v in found)})" if len(found) > 1 else ""
    return f"{100 * mean(found):.2f}{each}"


def _dense_note(runs: Sequence[Row], dense: Mapping[Any, Row]) -> str:
    if not runs:
        return ""
    own = {k: r for k, r in dense.items() if k in {(x["network"], x["seed"]) for x in runs}}
    each = "; ".join(
        f"seed {seed}: {r['before_accuracy']:.2%} on the {r['others']:,} other validation images, "
        f"{r['test_accuracy']:.2%} on the test images"
        for (_, seed), r in sorted(own.items())
    )
    return f"The dense network: {each}."


def _fronts(runs: Sequence[Row]) -> list[dict[str, Any]]:
    rows = []
    for row in dict.fromkeys(r["row"] for r in runs):
        own = sorted((r for r in runs if r["row"] == row), key=lambda r: r["seed"])
        rows.append(
            {
                "genes": row,
                "evaluations": own[0]["evaluations"],
                "points": ", ".join(str(len(r["front"])) for r in own),
                "hypervolume, searched": _volumes(own, "searched_volume"),
                "hypervolume, other images": _volumes(own, "volume"),
                **{f"best at {level}": _at(own, level) for level in own[0]["best_at"]},
            }
        )
    return rows


def _volumes(runs: Sequence[Row], name: str) -> str:
    each = f" ({', '.join(f'{r[name]:.4f}' for r in runs)})" if len(runs) > 1 else ""
    return f"{mean(r[name] for r in runs):.4f}{each}"


def _at(runs: Sequence[Row], level: str) -> str:
    found = [r["best_at"][level] for r in runs if r["best_at"][level] is not None]
    return _percent(found) if found else ""


def _front_note(runs: Sequence[Row]) -> str:
    if not runs:
        return ""
    latency, error = runs[0]["reference"]
    dense = ", ".join(
        f"{r['original'] * 1e6:.0f} µs, {r['dense_accuracy']:.2%} (seed {r['seed']})"
        for r in {r["seed"]: r for r in runs}.values()
    )
    return (
        f"Hypervolume in latency relative to the dense network and error, up to ({latency:g}, {error:g}). "
        f"The dense network by the table, on the other images: {dense}. The table: {runs[0]['latency']}."
    )


def _timing(timings: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {
            "genes": r["row"],
            "accuracy": f"{r['accuracy']:.2%}",
            "table": f"{r['table']:.1%}",
            "measured": f"{r['measured']:.1%}",
            "off by": f"{100 * (r['table'] / r['measured'] - 1):+.1f} %",
        }
        for r in sorted(timings, key=lambda r: (r["row"], r["table"]))
    ]


def _speed(speeds: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {
            "row": r["row"],
            "evaluations": r["trials"],
            "evaluations per second": f"{r['rate']:.2f}",
            "share of time": f"{r['share']:.1%}" if "share" in r else "",
            "against one worker": f"{r['ratio']:.2f}×" if "ratio" in r else "",
        }
        for r in speeds
    ]


def _transfer(runs: Sequence[Row]) -> list[dict[str, Any]]:
    rows = []
    for row in dict.fromkeys(name for r in runs for name in r["accuracies"]):
        own = [r["accuracies"][row] for r in sorted(runs, key=lambda r: r["seed"])]
        count = len(own[0])
        firsts = [n for n in (20, 40) if n <= count]
        rows.append(
            {
                "policy": row,
                **{f"mean of the first {n}": _percent(mean(a[:n]) for a in own) for n in firsts},
                **{f"best of {n}": _percent(max(a[:n]) for a in own) for n in (*firsts, count)},
            }
        )
    return rows


def _write(path: Path, rows: Sequence[Mapping[str, Any]], note: str) -> None:
    if not rows:
        path.unlink(missing_ok=True)  # the page then says that nothing has been measured yet
        return
    lines = [json.dumps(row) for row in rows]
    if note:
        lines.append(json.dumps({"note": note}))
    path.write_text("".join(line + "\n" for line in lines))
