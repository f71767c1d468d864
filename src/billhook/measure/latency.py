"""Latency of exported networks: one pinned process each, taking turns."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from billhook.errors import InputError
from billhook.measure.artifact import Artifact
from billhook.measure.backend import backends
from billhook.measure.environment import environment, quiet_cores
from billhook.measure.process import WorkerProcess
from billhook.measure.rounds import Clock, Round, Timing, compare, summarise
from billhook.results import Measurement

log = logging.getLogger("billhook")

PROBE_SECONDS = 0.05
BUSY_SPREAD = 0.15  # of the probe; a quiet core stays within a few percent
BUSY_SHARE = 0.9  # of the core that a worker got


@dataclass(frozen=True)
class Profile:
    """What running one artifact takes.

    Attributes:
        latency: Seconds per run of one batch.
        throughput: Samples per second at that batch size.
        memory: Bytes that loading and running add to the process, at the peak; the runtime's own code
            is not included.
    """

    latency: Measurement
    throughput: Measurement
    memory: Measurement


def latency(
    artifacts: Sequence[Artifact],
    *,
    rounds: int = 7,
    seconds_per_round: float = 0.5,
    warmup: float = 0.2,
    threads: int = 1,
    batch: int | None = 1,
    against: Artifact | None = None,
) -> list[Measurement]:
    """Return the latency of each artifact, measured in turns on the same pinned cores.

    With one thread the clock is time on the core (see `Timing.clock`); the conditions also hold wall time.

    Takes about (artifacts + 1) x rounds x seconds_per_round. A fixed matrix product takes turns too; its
    steadiness is among the conditions and tells whether the machine was quiet.

    Args:
        artifacts: What to time.
        rounds: Turns of each; 7 or more for numbers that are reported.
        seconds_per_round: Length of a turn.
        warmup: Seconds before the first turn that are not counted.
        threads: Threads of the runtime.
        batch: Batch size; None for that of the example inputs.
        against: The baseline. It is timed with the others and returned first; the conditions of every
            measurement then hold the ratios to it.
    Returns:
        Measurements in seconds, in the order of `artifacts`, after that of `against` if given.
    Raises:
        MeasureError: if a worker fails or does not answer; names the artifact.
        InputError: for values out of range, or a batch size that an artifact does not allow.
    """
    timing = Timing(rounds, seconds_per_round, warmup, threads, batch)
    return [p.latency for p in profile(artifacts, timing, against=against)]


def profile(
    artifacts: Sequence[Artifact], timing: Timing | None = None, *, against: Artifact | None = None
) -> list[Profile]:
    """Return latency, throughput and memory of each artifact from one interleaved run; see `latency`."""
    timing = timing or Timing()
    everyone = [*([] if against is None else [against]), *artifacts]
    if not everyone:
        raise InputError("nothing to time: no artifact was given")
    cores = quiet_cores(timing.threads)
    with ExitStack() as stack:
        workers = [stack.enter_context(start(a, timing, cores)) for a in everyone]
        probe = stack.enter_context(WorkerProcess("probe", timeout=timing.timeout))
        probe.probe(cores[:1])
        *turns, probes = take_turns([*workers, probe], timing, {probe: PROBE_SECONDS})
        memory = [w.peak_memory() for w in workers]
    clock = timing.clock
    shared = {**_conditions(timing, cores), **_steadiness(probes, clock)}
    times = [summarise(r, clock, {**_about(a), **shared}) for a, r in zip(everyone, turns, strict=True)]
    _tell_if_busy(times, clock)
    if against is not None:
        times = _with_ratios(times, against.name)
    batches = [timing.batch or a.manifest.batch or 1 for a in everyone]
    return [
        Profile(t, _throughput(t, batch), Measurement(float(used), "B", conditions=t.conditions))
        for t, batch, used in zip(times, batches, memory, strict=True)
    ]


def start(artifact: Artifact, timing: Timing, cores: Sequence[int]) -> WorkerProcess:
    """Return a warm worker for `artifact`; the caller closes it."""
    artifact.random_inputs(timing.batch)  # a wrong batch size is the user's mistake: say so before starting
    worker = WorkerProcess(artifact.name, threads=timing.threads, timeout=timing.timeout)
    try:
        worker.open(artifact, cores, timing.threads, timing.batch)
        if timing.warmup:
            worker.round(timing.warmup, timing.clock)
    except BaseException:
        worker.close()
        raise
    return worker


def take_turns(
    workers: Sequence[WorkerProcess], timing: Timing, seconds: dict[WorkerProcess, float] | None = None
) -> list[list[Round]]:
    """Return the rounds of each worker; every round starts with another worker.

    Args:
        workers: Who takes turns.
        timing: How many and how long.
        seconds: Other lengths of turns for some workers.
    """
    turns: dict[WorkerProcess, list[Round]] = {w: [] for w in workers}
    for i in range(timing.rounds):
        first = i % len(workers)
        for worker in (*workers[first:], *workers[:first]):
            length = (seconds or {}).get(worker, timing.seconds_per_round)
            turns[worker].append(worker.round(length, timing.clock))
    return [turns[w] for w in workers]


def _about(artifact: Artifact) -> dict[str, Any]:
    m = artifact.manifest
    precision = next((t.dtype for t in (*m.inputs, *m.outputs) if t.dtype.startswith("float")), "unknown")
    version = m.versions.get(m.backend, "")
    return {
        "artifact": artifact.name,
        "runtime": f"{m.backend} {version}".strip(),
        "precision": m.precision if m.precision == "int8" else backends.get(m.backend).precision or precision,
        "io_precision": precision,
    }


def _conditions(timing: Timing, cores: Sequence[int]) -> dict[str, Any]:
    return {
        "threads": timing.threads,
        "batch": timing.batch,
        "pinned": bool(cores),
        "seconds_per_round": timing.seconds_per_round,
        "warmup_s": timing.warmup,
        "machine": environment(),
    }


def _steadiness(probes: Sequence[Round], clock: Clock) -> dict[str, float]:
    probe = summarise(probes, clock, {})
    return {"probe_s": probe.value, "probe_spread": round(probe.spread, 3)}


def _tell_if_busy(times: Sequence[Measurement], clock: Clock) -> None:
    spread = 100 * times[0].conditions["probe_spread"]
    if spread > 100 * BUSY_SPREAD:
        log.warning("the machine changed its speed while timing (±%.0f %%); trust ratios only", spread)
    share = 100 * min(t.conditions["core_share"] for t in times)
    if clock == "core" and share < 100 * BUSY_SHARE:
        log.info("other programs had %.0f %% of the core; time on the core counts", 100 - share)


def _throughput(time: Measurement, batch: int) -> Measurement:
    slow, fast = time.maximum or time.value, time.minimum or time.value
    return Measurement(
        batch / time.value, "samples/s", time.repetitions, batch / slow, batch / fast, time.conditions
    )


def _with_ratios(times: Sequence[Measurement], baseline: str) -> list[Measurement]:
    ratios = [
        {
            "against": baseline,
            "ratio_of_medians": c.medians,
            "ratio_of_minima": c.minima,
            "ratio_of_wall_medians": c.wall_medians,
        }
        for c in compare(times, times[0])
    ]
    return [replace(m, conditions={**m.conditions, **r}) for m, r in zip(times, ratios, strict=True)]
