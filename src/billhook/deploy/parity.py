"""Does the exported network say what the PyTorch network says?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from billhook.deploy.example import Call, evaluating, named_outputs
from billhook.errors import ExportError
from billhook.measure.artifact import Artifact
from billhook.measure.backend import Array, Session

TOLERANCE = 1e-3
MOST_SQNR = 200.0  # dB: equal, as far as numbers can be
INTEGER_AGREEMENT = 0.99  # of integer outputs: indices flip where two values nearly tie


@dataclass(frozen=True)
class Parity:
    """How far the runtime's outputs are from PyTorch's.

    Attributes:
        max_abs_error: Largest absolute difference over all outputs.
        max_rel_error: The same, each output relative to its largest absolute value.
        argmax_agreement: Fraction of samples with the same largest entry along axis 1; None without axis 1.
        tolerance: Bound on `max_rel_error`; None in 8 bits, which differ by what rounding makes.
        batches: Batch sizes that were compared.
        sqnr: In 8 bits: energy of PyTorch's outputs over that of the difference, in dB, of the worst output;
            at most 200.
    """

    max_abs_error: float
    max_rel_error: float
    argmax_agreement: float | None
    tolerance: float | None
    batches: tuple[int, ...]
    sqnr: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "batches": list(self.batches)}


@dataclass(frozen=True)
class _Difference:
    absolute: float
    relative: float
    agreement: float | None


def check_parity(
    model: nn.Module,
    artifact: Artifact,
    session: Session,
    inputs: Any,
    *,
    tolerance: float | None = TOLERANCE,
) -> Parity:
    """Return how far `session` is from `model` on `inputs`.

    Where the batch size is open, it is also compared with 1 sample and with one more than `inputs` have:
    an export can be right for the batch size it was traced with and wrong for others.

    Args:
        model: The network that was exported; run in eval mode, left as it is.
        artifact: What it was exported to; for the names.
        session: The loaded artifact.
        inputs: Real data or the example: a tensor, a tuple, or a dict of keyword arguments.
        tolerance: Bound on the error relative to the largest output; None to take the ratio of signal and
            noise in its place.
    Raises:
        ExportError: if an output is missing, has another shape, or differs by more; names it.
    """
    call = Call.of(model, inputs)
    calls = [call]
    if artifact.manifest.dynamic_batch and call.batch:
        calls += [call.with_batch(n) for n in sorted({1, call.batch + 1} - {call.batch})]
    names = [spec.name for spec in artifact.manifest.outputs]
    found: list[_Difference] = []
    ratios: list[float] = []
    bound = float("inf") if tolerance is None else tolerance
    with evaluating(model):
        for c in calls:
            expected = [t.detach().cpu().numpy() for t in named_outputs(c.run(model)).values()]
            actual = _run(session, c, artifact)
            found += _differences(names, expected, actual, c.batch, bound)
            ratios += [sqnr(e, a) for e, a in zip(expected, actual, strict=True) if e.dtype.kind == "f"]
    agreements = [d.agreement for d in found if d.agreement is not None]
    return Parity(
        max_abs_error=max(d.absolute for d in found),
        max_rel_error=max(d.relative for d in found),
        argmax_agreement=min(agreements) if agreements else None,
        tolerance=tolerance,
        batches=tuple(c.batch or 0 for c in calls),
        sqnr=None if tolerance is not None else min(ratios, default=None),
    )


def _run(session: Session, call: Call, artifact: Artifact) -> list[Array]:
    try:
        return session.run([t.detach().cpu().numpy() for t in call.tensors])
    except Exception as e:  # runtimes raise their own types
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise ExportError(
            f"{artifact.manifest.backend} fails on a batch of {call.batch} which PyTorch accepts: {reason}; "
            "export with dynamic_batch=False if only one batch size is needed"
        ) from e


def _differences(
    names: Sequence[str], expected: list[Array], actual: list[Array], batch: int | None, tolerance: float
) -> list[_Difference]:
    if not len(names) == len(expected) == len(actual):
        raise ExportError(
            f"PyTorch gives {len(expected)} outputs, the runtime {len(actual)} ({', '.join(names)})"
        )
    differences = []
    for name, e, a in zip(names, expected, actual, strict=True):
        where = f"output {name!r} at batch size {batch}"
        if e.shape != a.shape:
            raise ExportError(f"{where} has shape {list(a.shape)} in the runtime, {list(e.shape)} in PyTorch")
        d = difference(e, a)
        integer = e.dtype.kind in "iub"
        if not (d.relative <= tolerance or (integer and (d.agreement or 0.0) >= INTEGER_AGREEMENT)):
            raise ExportError(
                f"{where} differs from PyTorch: error {d.absolute:.3g}, {d.relative:.2g} of the largest "
                f"value (allowed {tolerance:g}); the exporter or the runtime computes something else"
            )
        differences.append(_Difference(0.0, 0.0, d.agreement) if integer else d)
    return differences


def difference(expected: Array, actual: Array) -> _Difference:
    """Return the difference of two arrays of one shape; NaN and infinities in the same places are equal."""
    if not expected.size:
        return _Difference(0.0, 0.0, None)
    e, a = expected.astype(np.float64), actual.astype(np.float64)
    same = (e == a) | (np.isnan(e) & np.isnan(a))
    if expected.dtype.kind in "iub":
        agreement = float(same.mean())
        return _Difference(float(np.abs(e - a).max()), 1 - agreement, agreement)
    gap = np.abs(np.where(same, 0.0, e) - np.where(same, 0.0, a))
    absolute = float("inf") if np.isnan(gap).any() else float(gap.max())
    finite = np.abs(e[np.isfinite(e)])
    scale = float(finite.max()) if finite.size else 0.0
    relative = absolute / scale if scale else absolute
    classes = e.ndim >= 2 and e.shape[1] > 1
    return _Difference(absolute, relative, float((e.argmax(1) == a.argmax(1)).mean()) if classes else None)


def sqnr(expected: Array, actual: Array) -> float:
    """Return the energy of what was expected over that of the difference, in dB; at most `MOST_SQNR`."""
    e, a = (np.nan_to_num(x.astype(np.float64)) for x in (expected, actual))
    signal, noise = float((e**2).sum()), float(((e - a) ** 2).sum())
    if not noise:
        return MOST_SQNR
    return min(MOST_SQNR, round(10 * float(np.log10(max(signal / noise, 1e-20))), 2))
