"""Pass: operators compute in integers where they can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from billhook.compile.int8.choose import WEIGHTED, Reasons, choose, makes_bytes, moves
from billhook.compile.int8.grids import grids
from billhook.compile.int8.ranges import Range
from billhook.compile.int8.weights import Whole, whole
from billhook.compile.ir import Convert, Convolution, Linear, Network, Op, Quantised, Value
from billhook.errors import NameNotFoundError

_TOO_LARGE = "makes sums that could exceed 32 bits"


@dataclass(frozen=True)
class Quantisation:
    """A network in 8 bits.

    Attributes:
        network: With values in 8 bits, and `Convert` where others read or make them.
        notes: What stayed in float32, and why.
    """

    network: Network
    notes: tuple[str, ...]


def quantise(
    network: Network, ranges: Mapping[str, Range], *, keep: tuple[str, ...] = (), correct_bias: bool = False
) -> Quantisation:
    """Return a network, as the passes leave it, with convolutions and linear layers in integers.

    Convolutions make values in 8 bits, except those that make one pixel; these and linear layers make
    float32, and so are the inputs and outputs of the network.

    Args:
        network: After the passes; not in the engine's operators.
        ranges: Of every value, by name.
        keep: Names of values that are computed in float32; * and ? match.
        correct_bias: Take the mean error of rounded weights out of the bias.
    Raises:
        NameNotFoundError: if a name in `keep` matches none.
    """
    names = [v.name for v in network.values]
    for pattern in keep:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise NameNotFoundError("value to keep in float32", pattern, names)
    refused: dict[Op, str] = {}
    while True:
        reasons = choose(network, keep, refused)
        integer = [op for op in network if not reasons[op]]
        on = grids(integer, filter(moves, integer), ranges)
        weights: dict[Op, Whole] = {
            op: _whole(op, on, ranges, correct_bias) for op in integer if isinstance(op, WEIGHTED)
        }
        large: dict[Op, str] = {op: _TOO_LARGE for op, made in weights.items() if made.overflows}
        if not large:
            break
        refused |= large
    if not integer:
        return Quantisation(network, _notes(reasons))
    return Quantisation(_Rewriting(network, reasons, on, weights).network(), _notes(reasons))


def _whole(op: Op, on: Mapping[Value, Quantised], ranges: Mapping[str, Range], correct_bias: bool) -> Whole:
    assert isinstance(op, WEIGHTED)
    x = op.inputs[0]
    means = ranges[x.name].means if correct_bias else None
    return whole(op.weight, op.bias, on[x].scale, None if means is None else _spread(op, means))


def _spread(op: Convolution | Linear, means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean of what each weight is multiplied with, borders aside."""
    if isinstance(op, Linear):
        return np.broadcast_to(np.repeat(means, op.inputs[0].pixels), op.weight.shape)
    of_group = means.reshape(op.groups, 1, -1, 1, 1)
    outputs, *rest = op.weight.shape
    whole = np.broadcast_to(of_group, (op.groups, outputs // op.groups, *rest))
    return whole.reshape(op.weight.shape)


class _Rewriting:
    """Puts grids and weights into a network."""

    def __init__(
        self,
        network: Network,
        reasons: Reasons,
        on: Mapping[Value, Quantised],
        weights: Mapping[Op, Whole],
    ) -> None:
        self._old, self._reasons, self._on, self._weights = network, reasons, on, weights
        self._floats = {p.value: p.value for p in network.inputs}
        self._bytes: dict[Value, Value] = {}
        self._ops: list[Op] = []

    def network(self) -> Network:
        """Return the network."""
        for op in self._old:
            self._ops.append(self._integer(op) if not self._reasons[op] else self._float(op))
        outputs = tuple(replace(p, value=self._in_float(p.value)) for p in self._old.outputs)
        return replace(self._old, ops=tuple(self._ops), outputs=outputs)

    def _float(self, op: Op) -> Op:
        self._floats[op.output] = op.output
        return op.reading({v: self._in_float(v) for v in op.inputs})

    def _integer(self, op: Op) -> Op:
        inputs = tuple(self._in_bytes(v) for v in op.inputs)
        output = op.output
        if makes_bytes(op):
            output = self._bytes[op.output] = replace(op.output, quantised=self._on[op.output])
        else:
            self._floats[op.output] = output
        if not isinstance(op, WEIGHTED):
            return replace(op, inputs=inputs, output=output)
        made = self._weights[op]
        return replace(
            op, inputs=inputs, output=output, weight=made.weight, bias=made.bias, weight_scale=made.scale
        )

    def _in_float(self, value: Value) -> Value:
        """Return a value in float32; convert it if it is there in 8 bits only."""
        if value not in self._floats:
            made = self._floats[value] = replace(value, name=f"{value.name}.float")
            self._ops.append(Convert((self._bytes[value],), made))
        return self._floats[value]

    def _in_bytes(self, value: Value) -> Value:
        if value not in self._bytes:
            made = replace(value, name=f"{value.name}.bytes", quantised=self._on[value])
            self._bytes[value] = made
            self._ops.append(Convert((self._floats[value],), made))
        return self._bytes[value]


def _notes(reasons: Reasons) -> tuple[str, ...]:
    """Return what a user should know: every layer with weights that stayed, all others by kind."""
    notes = [
        f"{op.kind} {op.output.name!r} stays in float32: it {why}"
        for op, why in reasons.items()
        if why and isinstance(op, WEIGHTED)
    ]
    others = Counter(op.kind for op, why in reasons.items() if why and not isinstance(op, WEIGHTED))
    if others:
        notes.append(f"in float32: {', '.join(f'{n} × {kind}' for kind, n in sorted(others.items()))}")
    return tuple(notes)
