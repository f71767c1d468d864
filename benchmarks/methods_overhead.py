#!/usr/bin/env python3
"""What a method that decides while it trains adds to a training step.

    python benchmarks/methods_overhead.py            # benchmarks/results/methods_overhead.jsonl, 10 minutes
    python benchmarks/methods_overhead.py --quick    # two methods

ResNet-20 (stem stride 2), Fashion-MNIST, batch 128, one thread. Each method trains beside plain training, in
turns of a few steps, so that both see the same machine. Work that is done now and then (clustering, scoring)
is told apart from what every step costs: the former shows in the mean of all steps, the latter in the median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks._methods_run import fresh  # noqa: E402
from benchmarks._training import Protocol, batches, example  # noqa: E402
from billhook import Budget, pruning_callback  # noqa: E402
from billhook.methods import methods  # noqa: E402
from billhook.train import CallbackDriver  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "methods_overhead.jsonl"
STEPS, TURN = 120, 5


def stepper(callback: Any, model: nn.Module) -> Callable[[Any], float]:
    """Return what makes one training step and tells its seconds."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-4)
    callbacks = [] if callback is None else [callback]
    driver = CallbackDriver(callbacks, model, optimizer, total_steps=STEPS)

    def step(batch: Any) -> float:
        inputs, targets = batch
        inputs = inputs.to(memory_format=torch.channels_last)
        began = time.process_time()
        optimizer.zero_grad()
        driver.before_step(inputs, targets)
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(model(inputs), targets)
        driver.add_terms(loss).backward()
        driver.after_backward()
        optimizer.step()
        driver.after_step()
        return time.process_time() - began

    return step


def measure(method: str) -> dict[str, Any]:
    """Return the row of one method."""
    data = batches(Protocol(), 0)
    plain_model, model = (fresh("resnet-20", 0).to(memory_format=torch.channels_last) for _ in range(2))
    calibration = list(islice(data.epoch(0), 2))
    # Active to the last step, and never done early.
    known = {f.name for f in fields(methods.get(method))}
    options = {"until": 1.0} if "until" in known else {"ramp": 1.0} if "ramp" in known else {}
    callback = pruning_callback(
        model,
        example(),
        method=method,
        options=options,
        budget=Budget(macs=0.2),
        data=calibration,
        round_to=4,
    )
    plain, ours = stepper(None, plain_model), stepper(callback, model)
    times: tuple[list[float], list[float]] = ([], [])
    loader = list(islice(data.epoch(0), STEPS))
    for start in range(0, STEPS, TURN):
        for step, seconds in zip((plain, ours), times, strict=True):
            seconds += [step(batch) for batch in loader[start : start + TURN]]
    base = statistics.median(times[0])
    every = statistics.median(times[1]) / base - 1
    return {
        "method": method,
        "every step": f"{every:+.1%}",
        "with periodic work": f"{statistics.mean(times[1]) / statistics.mean(times[0]) - 1:+.1%}",
        "within 15 %": every <= 0.15,
    }


def main() -> None:
    """Write one row per method."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two methods only")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    names = [n for n in methods.names() if methods.info(n).trains]
    rows = []
    for name in ["gator", "iterative"] if quick else names:
        rows.append(measure(name))
        print(json.dumps(rows[-1]), flush=True)
    note = (
        f"ResNet-20 (stem stride 2, 16/32/64 channels), Fashion-MNIST, batch 128, bf16 autocast, one thread, "
        f"{STEPS} steps of the method in turns with as many of plain training, time on the core. Every step: "
        "median step, of a method that is active from the first to the last; with periodic work: "
        "mean of all steps, the first one included, of a run of only "
        f"{STEPS} steps, in which scoring and clustering come far more often than in a real one."
    )
    if not quick:
        RESULTS.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"note": note}]))


if __name__ == "__main__":
    main()
