"""Calibration: a network runs on real data, and every value's range is found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from billhook.compile import reference
from billhook.compile.int8.histogram import Histogram
from billhook.compile.int8.ranges import METHODS, PERCENTILE, Range
from billhook.compile.ir import Network, Value
from billhook.errors import InputError, NameNotFoundError
from billhook.graph.inputs import ExampleInputs, as_call, tensors

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Calibration:
    """How a network comes to 8 bits: data to find ranges on, and the rule by which they are found.

    A few hundred samples of what the network will see are enough. They are run through it in float32, batch
    after batch; what is kept is counts.

    Attributes:
        batches: Inputs, each in the form of the example inputs, without targets: a list, or a loader that can
            be gone through again.
        method: "mse" takes the range with the least squared error, "percentile" leaves out the extreme
            numbers at either end, "minmax" takes all.
        percentile: Share of the numbers that "percentile" keeps at either end, in per cent.
        keep: Values that are computed in float32, by the names that the compiler's notes use; * and ? match.
        correct_bias: Take the mean error that rounded weights make out of the bias.
    Raises:
        InputError: for a wrong percentile, one name in the place of `keep`, or batches that can be gone
            through once only.
        NameNotFoundError: if there is no such method.
    """

    batches: Iterable[ExampleInputs]
    method: str = "mse"
    percentile: float = PERCENTILE
    keep: tuple[str, ...] = ()
    correct_bias: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise NameNotFoundError("calibration method", self.method, METHODS)
        if not 50 < self.percentile <= 100:
            raise InputError(f"percentile is {self.percentile}; it must be above 50 and at most 100")
        if isinstance(self.keep, str):
            raise InputError(f"keep is a tuple of names; write ({self.keep!r},) for a single one")
        if isinstance(self.batches, (Tensor, Mapping)):
            raise InputError(
                "batches of a calibration must be a list of batches; write [batch] for a single one"
            )
        if isinstance(self.batches, Iterator) or not isinstance(self.batches, Iterable):
            raise InputError(
                "batches of a calibration must be a list, or a loader that can be gone through again, not a "
                f"{type(self.batches).__name__}"
            )

    def first(self) -> ExampleInputs:
        """Return the first batch.

        Raises:
            InputError: if there is none.
        """
        for batch in self.batches:
            return batch
        raise InputError("there are no batches to calibrate on")

    def range(self, seen: Histogram) -> tuple[float, float]:
        """Return the range that a grid shall cover."""
        return METHODS[self.method](seen, self.percentile)


def calibrate(network: Network, calibration: Calibration) -> dict[str, Range]:
    """Return the range of every value of a network in float32, by name.

    Raises:
        InputError: if there are no batches, or they do not fit the network's inputs; or for a value that has
            numbers which are not finite.
    """
    seen: dict[Value, _Seen] = {v: _Seen() for v in network.values}
    batches = 0
    for batch in calibration.batches:
        arrays = in_order(network, batch)
        reference.run(network, arrays, torch.float32, lambda value, x: seen[value].add(value, x))
        batches += 1
    if not batches:
        raise InputError("there are no batches to calibrate on")
    return {v.name: Range(*calibration.range(s.histogram), s.means) for v, s in seen.items()}


class _Seen:
    """What has been seen of a value."""

    def __init__(self) -> None:
        self.histogram = Histogram()
        self._sums: npt.NDArray[np.float64] | float = 0.0
        self._count = 0

    @property
    def means(self) -> npt.NDArray[np.float64]:
        return np.asarray(self._sums) / self._count

    def add(self, value: Value, x: Tensor) -> None:
        sums = x.sum((0, 2, 3), dtype=torch.float64)
        if not bool(sums.isfinite().all()):
            raise InputError(
                f"the network computes numbers that are not finite on the calibration data: {value.name!r}; "
                "look for NaN and infinities in the data and the weights"
            )
        self.histogram.add(x)
        self._sums = self._sums + sums.numpy()
        self._count += x.numel() // value.channels


def in_order(network: Network, batch: Any) -> list[Array]:
    """Return a batch as float32 arrays, in the order of the network's inputs.

    Raises:
        InputError: if they do not fit.
    """
    args, kwargs = as_call(batch)
    ports = network.inputs
    given = tensors(args) if not kwargs else [t for p in ports for t in tensors(kwargs.get(p.name))]
    shapes = [tuple(t.shape) for t in given]
    expected = [("batch", *p.shape) for p in ports]
    if len(given) != len(ports):
        raise InputError(
            f"a calibration batch has {len(given)} tensors, and the network takes {len(ports)}; give inputs "
            "only, as in [inputs for inputs, targets in loader]"
        )
    if any(s[1:] != p.shape or not s[0] or s[0] != shapes[0][0] for s, p in zip(shapes, ports, strict=True)):
        raise InputError(
            f"a calibration batch has the shapes {_listed(shapes)}; the network takes {_listed(expected)}"
        )
    return [t.detach().cpu().to(torch.float32).numpy() for t in given]


def _listed(shapes: Iterable[tuple[Any, ...]]) -> str:
    return ", ".join("×".join(map(str, shape)) or "()" for shape in shapes)
