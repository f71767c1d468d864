"""Accuracy of an exported network in the runtime that would be shipped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from billhook.errors import InputError, MeasureError
from billhook.measure.artifact import Artifact
from billhook.measure.backend import Array, Session, backends
from billhook.results import Measurement


def accuracy(
    artifact: Artifact,
    batches: Iterable[tuple[Any, Any]],
    *,
    output: int | str = 0,
    threads: int = 1,
    conditions: Mapping[str, Any] | None = None,
) -> Measurement:
    """Return the fraction of samples whose largest logit is the target class.

    Runs in this process; one pass over the data, one batch in memory at a time.

    Args:
        artifact: A classifier.
        batches: Pairs of inputs (tensor or array, tuple, or dict by input name) and class numbers [n].
        output: Index or name of the output with the logits; shape [n, classes].
        threads: Threads of the runtime.
        conditions: What the data are (data set, split); kept in the result.
    Raises:
        InputError: if inputs, targets or outputs do not fit together.
        MeasureError: if the network's output is not a number, or there are no data.
    """
    session = backends.get(artifact.manifest.backend).open(artifact, threads)
    column = _column(artifact, output)
    right = seen = 0
    for inputs, targets in batches:
        labels = np.asarray(targets)
        logits = run_all(session, artifact, in_order(artifact, inputs))[column]
        if logits.ndim != 2 or labels.shape != logits.shape[:1]:
            got = f"{list(logits.shape)} and {list(labels.shape)}"
            raise InputError(f"accuracy needs outputs [n, classes] and targets [n]; got {got}")
        if np.isnan(logits).any():
            raise MeasureError(
                f"{artifact.name}: output is not a number for samples {seen} to {seen + len(labels)}"
            )
        right += int((logits.argmax(axis=1) == labels).sum())
        seen += len(labels)
    if not seen:
        raise MeasureError(f"{artifact.name}: no data to measure accuracy on")
    version = artifact.manifest.versions.get(artifact.manifest.backend, "")
    own = {"runtime": f"{artifact.manifest.backend} {version}".strip(), "samples": seen, "correct": right}
    return Measurement(right / seen, "1", conditions={**(conditions or {}), **own})


def in_order(artifact: Artifact, inputs: Any) -> list[Array]:
    """Return `inputs` as arrays in the order of the manifest; raises `InputError`."""
    specs = artifact.manifest.inputs
    if isinstance(inputs, Mapping):
        missing = [s.name for s in specs if s.name not in inputs]
        if missing:
            raise InputError(f"{artifact.name}: inputs {missing} are missing; got {sorted(inputs)}")
        values = [inputs[s.name] for s in specs]
    else:
        values = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    if len(values) != len(specs):
        raise InputError(f"{artifact.name}: takes {len(specs)} inputs, got {len(values)}")
    return [_array(v) for v in values]


def run_all(session: Session, artifact: Artifact, inputs: list[Array]) -> list[Array]:
    """Run a batch of any size, in pieces of the artifact's batch size where that is fixed."""
    fixed = None if artifact.manifest.dynamic_batch else artifact.manifest.batch
    n = len(inputs[0]) if inputs and inputs[0].ndim else 0
    if fixed is None or n == fixed:
        return session.run(inputs)
    pieces = []
    for begin in range(0, n, fixed):
        # The last piece is filled up with its first sample; what comes out for the filling is dropped.
        picks = [i if i < n else begin for i in range(begin, begin + fixed)]
        part = [x[picks] if x.ndim and len(x) == n else x for x in inputs]
        pieces.append([o[: n - begin] for o in session.run(part)])
    return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]


def _array(value: Any) -> Array:
    # Duck-typed, because this package does not import torch.
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _column(artifact: Artifact, output: int | str) -> int:
    names = [o.name for o in artifact.manifest.outputs]
    if isinstance(output, str) and output in names:
        return names.index(output)
    if isinstance(output, int) and 0 <= output < len(names):
        return output
    raise InputError(f"{artifact.name}: no output {output!r}; outputs: {', '.join(names)}")
