#!/usr/bin/env python3
"""Exactness: half of all channels leave many known networks at random, and the result must be right.

    python benchmarks/exactness.py                                # all; benchmarks/results/exactness.jsonl
    python benchmarks/exactness.py --quick                        # the small ones
    python benchmarks/exactness.py --only torchvision/vit_b_16    # one; replaces its line in the results
    python benchmarks/exactness.py --random 200                   # random networks of tests/property instead

Right means: the smaller network runs; it equals the original with the same channels silenced (`verify`); and
it equals a copy of the original whose consuming weights are zero (`tests/oracle.py`, which shares no code
with billhook). Then, with `mixing="allow"`, channels that pass through layer norm leave as well; silence and
removal are then compared on what is kept.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import sys
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks._zoo import NETWORKS, Network  # noqa: E402
from billhook.errors import BillhookError  # noqa: E402
from billhook.graph import Graph, apply, capture, verify  # noqa: E402
from tests.oracle import EVERYTHING, compare, random_plan, randomize  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "exactness.jsonl"
TOLERANCE = 1e-4
OUTPUT = "model output"


@dataclass(frozen=True)
class Coverage:
    """Output channels of all convolutions and linear layers that run.

    Attributes:
        total: How many there are.
        prunable: How many may leave, alone or with others.
        frozen: The others, by reason.
    """

    total: int
    prunable: int
    frozen: Mapping[str, int]

    @property
    def share(self) -> float:
        """Prunable share of all."""
        return self.prunable / self.total

    @property
    def inner_share(self) -> float:
        """Prunable share of those that are not the network's outputs."""
        return self.prunable / max(self.total - self.frozen.get(OUTPUT, 0), 1)


@dataclass(frozen=True)
class Outcome:
    """What became of one network in one mode of mixing."""

    network: str
    agrees: bool
    exact: bool
    verify_error: float
    oracle_error: float
    effect: float
    coverage: Coverage
    capture_s: float
    apply_s: float


def coverage(model: nn.Module, graph: Graph) -> Coverage:
    """Count channels where weights make them, by the members of the groups."""
    parameters = dict(model.named_parameters())
    owner: dict[tuple[str, int], list[tuple[int, str | None]]] = {}
    for group in graph.groups:
        reason = None if group.frozen is None else group.frozen.text.partition(" in ")[0]
        for member in group.members:
            if member.role != "in":
                owner.setdefault((member.tensor, member.axis), []).append((member.index.size, reason))
    frozen: Counter[str] = Counter()
    total = prunable = 0
    for name, axis in _makers(model):
        if name not in parameters or (name, axis) not in owner:
            continue  # the same weight under another name, or a layer that does not run in eval mode
        total += parameters[name].shape[axis]
        for size, reason in owner[name, axis]:
            if reason is None:
                prunable += size
            else:
                frozen[reason] += size
    return Coverage(total, prunable, dict(frozen.most_common()))


def _makers(model: nn.Module) -> list[tuple[str, int]]:
    """Return name and output axis of the weight of every convolution and linear layer."""
    found: list[tuple[str, int]] = []
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, nn.modules.conv._ConvNd):
            found.append((f"{prefix}weight", 1 if module.transposed else 0))
        elif isinstance(module, nn.Linear):
            found.append((f"{prefix}weight", 0))
        elif type(module).__name__ == "Conv1D":  # of transformers: a linear layer with its weight transposed
            found.append((f"{prefix}weight", 1))
        elif isinstance(module, nn.MultiheadAttention):
            found.append((f"{prefix}in_proj_weight", 0))
    return found


def measure(network: Network, mixing: str = "freeze", seed: int = 0) -> Outcome:
    """Prune half of every group and compare; raises a `BillhookError` if that cannot be done."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = network.build().eval()
        inputs = network.inputs()
        randomize(model, seed, inputs)
    started = time.perf_counter()
    graph = capture(model, inputs, mixing="allow" if mixing == "allow" else "freeze")
    captured = time.perf_counter()
    plan = random_plan(graph, seed=seed)
    planned = time.perf_counter()
    small = apply(model, plan)
    applied = time.perf_counter()
    check = verify(model, plan, inputs, small=small)
    distance = compare(model, graph.groups, plan, small, inputs)
    if check.exact and distance.error > TOLERANCE:
        # A sum, a norm or a product consumes channels: no weights can be zeroed but those that make them.
        distance = compare(model, graph.groups, plan, small, inputs, EVERYTHING)
    return Outcome(
        type(small).__name__, check.agrees, check.exact, check.max_rel_error, distance.error, distance.effect,
        coverage(model, graph), captured - started, applied - planned,
    )  # fmt: skip


@dataclass
class Row:
    """One line of the results."""

    network: str
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        """True if everything held in both modes."""
        v = self.values
        return (
            bool(v.get("runs"))
            and v["oracle_error"] <= TOLERANCE
            and bool(v["exact"])
            and bool(v["allow_agrees"])
        )


def row(network: Network) -> Row:
    """Return the line of one network."""
    result = Row(network.name)
    put = result.values
    try:
        outcome = measure(network)
        put.update({
            "runs": True, "exact": outcome.exact, "verify_error": outcome.verify_error,
            "oracle_error": outcome.oracle_error, "effect": outcome.effect,
            "prunable": round(outcome.coverage.share, 4),
            "prunable_inner": round(outcome.coverage.inner_share, 4),
            "result": outcome.network, "channels": outcome.coverage.total,
            "capture_s": round(outcome.capture_s, 2),
            "apply_s": round(outcome.apply_s, 2), "frozen": outcome.coverage.frozen,
        })  # fmt: skip
        gc.collect()
        allowed = measure(network, "allow")
        put.update({
            "allow_agrees": allowed.agrees, "allow_verify_error": allowed.verify_error,
            "allow_prunable": round(allowed.coverage.share, 4),
            "allow_prunable_inner": round(allowed.coverage.inner_share, 4), "allow_result": allowed.network,
            "allow_frozen": allowed.coverage.frozen,
        })  # fmt: skip
    except BillhookError as e:
        put.update({"runs": False, "error": f"{type(e).__name__}: {e}"})
    gc.collect()
    return result


def write(rows: list[Row]) -> None:
    """Put `rows` into the results, in the order of the list of networks; others stay."""
    old = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    known = {r["network"]: r for r in map(json.loads, old) if "network" in r}
    known |= {r.network: {"network": r.network, **r.values} for r in rows}
    note = (
        "Half of all units of every prunable group removed at random (seed 0); random weights, float32; "
        f"torch {torch.__version__}, one thread of a shared machine; images of 128 pixels where the network "
        "allows it."
    )
    lines = [known[n.name] for n in NETWORKS if n.name in known]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"note": note}]))


def main() -> int:
    """Run what was asked for; return 0 if all of it is right."""
    names = [n.name for n in NETWORKS]
    parser = argparse.ArgumentParser(
        description="half of all channels leave many networks; the result must be right"
    )
    parser.add_argument(
        "--only", action="append", choices=names, metavar="NAME", help="a network; may be repeated"
    )
    parser.add_argument("--quick", action="store_true", help="only the small ones; results are not written")
    parser.add_argument(
        "--random", type=int, metavar="N", help="N random networks instead; results are not written"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("billhook").setLevel(logging.ERROR)  # the class of each result is in its row
    if options.random:
        from tests.property.random_networks import mismatches

        found = mismatches(options.random)
        print(f"{options.random} random networks, {len(found)} mismatches", *found, sep="\n")
        return 1 if found else 0
    chosen = [n for n in NETWORKS if n.name in (options.only or names) and (n.quick or not options.quick)]
    wrong = 0
    for network in chosen:
        result = row(network)
        wrong += not result.right
        shown = {
            k: v
            for k, v in result.values.items()
            if k in ("prunable", "prunable_inner", "allow_prunable", "result", "error")
        }
        print(f"{network.name:44s} {'right' if result.right else 'WRONG'} {shown}", file=sys.stderr)
        if not options.quick:
            write([result])
    print(f"{len(chosen) - wrong} of {len(chosen)} networks right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
