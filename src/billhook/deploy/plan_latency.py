"""`PlanLatency`: the measured latency of a plan, as a function that an allocator can call."""

from __future__ import annotations

import logging
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from torch import nn

from billhook import graph
from billhook.deploy.example import Call
from billhook.deploy.exporter import export
from billhook.errors import ExportError, MeasureError
from billhook.graph.inputs import ExampleInputs
from billhook.graph.plan import Plan
from billhook.measure.artifact import Artifact
from billhook.measure.rig import LatencyRig, LatencySample
from billhook.measure.rounds import QUICK, Timing

log = logging.getLogger("billhook")

Key = tuple[tuple[str, str, int], ...]


class PlanLatency:
    """Times what plans make of a network, always in turns with the network itself.

        with PlanLatency(model, example_inputs) as latency:
            sample = latency(plan)          # sample.candidate, sample.original: seconds
            sample = latency.confirm(plan)  # the same with long turns

    Each new plan is applied, exported ("timing") into a temporary folder and timed; that takes about 3 s
    for a ResNet-20. Latency depends on how many units and weights stay, not on which, so plans with equal
    counts share one result.

    Args:
        model: The original network; left as it is.
        example_inputs: A tensor, a tuple, or a dict of keyword arguments.
        backend: Runtime to time.
        timing: Threads, batch size, length and number of turns.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: ExampleInputs,
        *,
        backend: str = "onnxruntime",
        timing: Timing = QUICK,
    ) -> None:
        self._model = model
        self._inputs = example_inputs
        self._backend = backend
        self._timing = timing
        self._stack: ExitStack | None = None
        self._folder = Path()
        self._rig: LatencyRig | None = None
        self._exports: dict[Key, Artifact] = {}
        self._samples: dict[Key, LatencySample] = {}

    def __enter__(self) -> PlanLatency:
        with ExitStack() as stack:
            folder = tempfile.TemporaryDirectory(prefix="billhook-", ignore_cleanup_errors=True)
            self._folder = Path(stack.enter_context(folder))
            original = self._export_original()
            self._rig = stack.enter_context(LatencyRig(original, self._timing))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._stack is not None:
            self._stack.close()
        self._stack = self._rig = None
        self._exports.clear()
        self._samples.clear()

    @property
    def exports(self) -> int:
        """How many different candidates were exported so far."""
        return len(self._exports)

    def __call__(self, plan: Plan) -> LatencySample:
        """Return times with and without `plan`; a plan with the same counts is not timed again.

        Raises:
            ExportError: if the smaller network cannot be exported.
            MeasureError: if timing fails, or outside the `with` block.
        """
        key = _key(plan)
        if key not in self._samples:
            self._samples[key] = self._time(plan, None)
        return self._samples[key]

    def confirm(self, plan: Plan, timing: Timing | None = None) -> LatencySample:
        """Return times from long turns (7 of 0.5 s if `timing` is not given) without exporting again."""
        self._samples[_key(plan)] = sample = self._time(plan, timing or Timing())
        return sample

    def _time(self, plan: Plan, timing: Timing | None) -> LatencySample:
        if self._rig is None:
            raise MeasureError("latency of plans was asked for outside its with block")
        key = _key(plan)
        if key not in self._exports:
            smaller = graph.apply(self._model, plan)
            self._exports[key] = self._export(smaller, f"candidate-{len(self._exports) + 1}")
        return self._rig.relative_latency(self._exports[key], timing)

    def _export_original(self) -> Artifact:
        original, self._inputs, self._timing = export_for_timing(
            self._model, self._inputs, self._folder / "original", backend=self._backend, timing=self._timing
        )
        return original

    def _export(self, model: nn.Module, name: str) -> Artifact:
        return export(model, self._inputs, self._folder / name, backend=self._backend, purpose="timing")


def export_for_timing(
    model: nn.Module, example_inputs: ExampleInputs, directory: Path, *, backend: str, timing: Timing
) -> tuple[Artifact, ExampleInputs, Timing]:
    """Export with the batch size to time, or with the example's if the network takes no other.

    Returns:
        The artifact, and the example inputs and timing that candidates are to be exported and timed with.
    """
    call, batch = Call.of(model, example_inputs), timing.batch
    if batch is not None and call.batch not in (None, batch):
        resized = call.with_batch(batch)
        inputs = resized.kwargs or resized.args
        try:
            return export(model, inputs, directory, backend=backend, purpose="timing"), inputs, timing
        except ExportError as e:
            log.warning("timing with the example's batch size %s, because %s fails: %s", call.batch, batch, e)
            timing = replace(timing, batch=None)
    artifact = export(model, example_inputs, directory, backend=backend, purpose="timing")
    return artifact, example_inputs, timing


def _key(plan: Plan) -> Key:
    """Return what a plan's latency depends on: how many units and weights stay, in which patterns."""
    channels = sorted((name, "", kept) for name, kept in plan.counts.items() if name in plan.removed)
    weights = sorted((name, str(s.pattern), s.nonzeros) for name, s in plan.patterns.items())
    return tuple(channels + weights)
