"""Pass: sums of linear functions of one value become one of them.

convolution(x) + convolution(x)   convolution, kernels laid over each other
linear(x) + linear(x)             linear
scale · x + shift, and x itself   its kernel's middle, or a scale where there is no convolution
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from billhook.compile.blocks import multiplications
from billhook.compile.ir import Affine, Binary, Convolution, Floats, Linear, Network, Op, Value
from billhook.compile.passes.drop_unused import drop_unused
from billhook.compile.tiles import RATES

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Term:
    """A summand: what makes it (None: nothing, it is there), what that reads, and the sign."""

    value: Value
    maker: Convolution | Linear | Affine | None
    sign: int

    @property
    def source(self) -> Value:
        return self.maker.inputs[0] if self.maker else self.value


def merge_parallel(network: Network) -> Network:
    """Return the network in which fewer linear functions of one value are added up.

    Only where they are read nowhere else, and where the one has no more multiplications than the others had,
    zeros left out: an identity in a matrix with blocks of zeros would cost more than an addition.
    """
    uses = network.uses
    makers = {op.output: op for op in network}
    inner: set[Value] = set()  # sums that are part of a larger one
    for op in network:
        if _is_sum(op):
            inner |= {
                v for v in op.inputs if uses[v] == 1 and _is_sum(makers.get(v)) and not makers[v].activation
            }
    ops: list[Op] = []
    for op in network:
        if isinstance(op, Binary) and _is_sum(op) and op.output not in inner:
            ops += _sum(op, _terms(op, 1, makers, inner, uses.__getitem__))
        else:
            ops.append(op)
    return drop_unused(network.with_ops(ops))


def _is_sum(op: Op | None) -> bool:
    """Return True for sums and differences of values of one size."""
    if not isinstance(op, Binary) or op.function not in ("add", "subtract"):
        return False
    a, b = op.inputs
    return (a.channels, a.height, a.width) == (b.channels, b.height, b.width)


def _terms(
    op: Op, sign: int, makers: dict[Value, Op], inner: set[Value], uses: Callable[[Value], int]
) -> list[_Term]:
    assert isinstance(op, Binary)
    found: list[_Term] = []
    for value, own in zip(op.inputs, (sign, -sign if op.function == "subtract" else sign), strict=True):
        maker = makers.get(value)
        if value in inner:
            found += _terms(makers[value], own, makers, inner, uses)
        elif (
            isinstance(maker, Convolution | Linear | Affine)
            and len(maker.inputs) == 1
            and not maker.activation
            and uses(value) == 1
        ):
            found.append(_Term(value, maker, own))
        else:
            found.append(_Term(value, None, own))
    return found


def _sum(op: Binary, terms: list[_Term]) -> list[Op]:
    """Return operators that make the sum of the terms, or `op` if none of them can be merged."""
    made: list[Op] = []
    left: list[_Term] = []
    for source in dict.fromkeys(t.source for t in terms):
        parts = [t for t in terms if t.source is source]
        value = replace(op.output, name=f"{op.output.name}.merged{len(made)}")
        merged = _merged(parts, value) if len(parts) > 1 else None
        if merged is None:
            left += parts
        else:
            made.append(merged)
            left.append(_Term(value, None, 1))
    if not made:
        return [op]
    if len(left) == 1:
        return [replace(made[0], output=op.output, activation=op.activation)]
    left.sort(key=lambda term: -term.sign)  # a sum cannot begin with what is subtracted
    if left[0].sign < 0:
        return [op]
    total = left[0].value
    for number, term in enumerate(left[1:], 1):
        last = number == len(left) - 1
        out = op.output if last else replace(op.output, name=f"{op.output.name}.sum{number}")
        made.append(Binary((total, term.value), out, "add" if term.sign > 0 else "subtract"))
        total = out
    return [*made[:-1], replace(made[-1], activation=op.activation)]


def _merged(parts: Sequence[_Term], out: Value) -> Op | None:
    """Return one operator for the sum of functions of one value, None if there is none or it is dearer."""
    convolutions = [t for t in parts if isinstance(t.maker, Convolution)]
    linears = [t for t in parts if isinstance(t.maker, Linear)]
    scales = [t for t in parts if not isinstance(t.maker, Convolution | Linear)]
    if convolutions and linears:
        return None
    scale, shift = _scale(scales, parts[0].source.channels)
    if linears:
        return _linear(linears, scale, shift, bool(scales), out)
    if not convolutions:
        return Affine((parts[0].source,), out, scale.astype(np.float32), shift.astype(np.float32))
    return _convolution(convolutions, scale, shift, bool(scales), out)


def _scale(terms: Sequence[_Term], channels: int) -> tuple[Doubles, Doubles]:
    """Return scale and shift by channel of the sum of scales and of the value itself."""
    scale, shift = np.zeros(channels), np.zeros(channels)
    for term in terms:
        if isinstance(term.maker, Affine):
            scale += term.sign * term.maker.scale.astype(np.float64)
            shift += term.sign * term.maker.shift.astype(np.float64)
        else:
            scale += term.sign
    return scale, shift


def _linear(terms: Sequence[_Term], scale: Doubles, shift: Doubles, scales: bool, out: Value) -> Op | None:
    first, *_ = makers = [t.maker for t in terms if isinstance(t.maker, Linear)]
    if scales or any(m.groups != first.groups for m in makers):
        return None
    weight, bias = np.zeros(first.weight.shape), np.zeros(first.bias.shape)
    for term, maker in zip(terms, makers, strict=True):
        weight += term.sign * maker.weight.astype(np.float64)
        bias += term.sign * maker.bias.astype(np.float64)
    return replace(first, output=out, weight=_rounded(weight), bias=_rounded(bias))


def _convolution(
    terms: Sequence[_Term], scale: Doubles, shift: Doubles, scales: bool, out: Value
) -> Op | None:
    first, *_ = makers = [t.maker for t in terms if isinstance(t.maker, Convolution)]
    x = first.inputs[0]
    outputs, inputs = first.weight.shape[:2]
    if scales and (first.stride != (1, 1) or outputs != x.channels):
        return None
    form = _kernel(makers, x, out, scales)
    if form is None or any((m.stride, m.groups) != (first.stride, first.groups) for m in makers):
        return None
    size, padding, dilation = form
    weight, bias = np.zeros((outputs, inputs, *size)), shift if scales else np.zeros(outputs)
    for term, maker in zip(terms, makers, strict=True):
        places = [
            (np.arange(n) * own + before - around) // step
            for n, own, before, around, step in zip(
                maker.weight.shape[2:],
                maker.dilation,
                padding[::2],
                maker.padding[::2],
                dilation,
                strict=True,
            )
        ]
        weight[:, :, places[0][:, None], places[1]] += term.sign * maker.weight.astype(np.float64)
        bias = bias + term.sign * maker.bias.astype(np.float64)
    if scales:
        channel = np.arange(outputs)
        weight[channel, channel % inputs, padding[0] // dilation[0], padding[2] // dilation[1]] += scale
    made = replace(
        first, output=out, weight=_rounded(weight), bias=_rounded(bias), padding=padding, dilation=dilation
    )
    before = sum(_work(m) for m in makers) + (outputs if scales else 0)
    return made if _work(made) <= before else None


def _kernel(
    makers: Sequence[Convolution], x: Value, out: Value, centre: bool
) -> tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int]] | None:
    """Return height and width, padding and dilation of a kernel that covers all others, and pixel (0, 0)."""
    sizes, befores, afters, steps = [], [], [], []
    for axis, (given, made) in enumerate(((x.height, out.height), (x.width, out.width))):
        spans = [(m.weight.shape[2 + axis], m.dilation[axis], m.padding[2 * axis]) for m in makers]
        step = max((d for n, d, _ in spans if n > 1), default=1)
        firsts = [-before for _, _, before in spans] + [0] * centre
        lasts = [(n - 1) * d - before for n, d, before in spans] + [0] * centre
        low, high = min(firsts), max(lasts)
        if any(d != step for n, d, _ in spans if n > 1) or any((f - low) % step for f in firsts) or low > 0:
            return None
        stride = makers[0].stride[axis]
        after = max(0, (made - 1) * stride + high + 1 - given)
        if (given + after - high - 1) // stride + 1 != made:
            return None
        sizes.append((high - low) // step + 1)
        befores.append(-low)
        afters.append(after)
        steps.append(step)
    padding = (befores[0], afters[0], befores[1], afters[1])
    return (sizes[0], sizes[1]), padding, (steps[0], steps[1])


def _work(op: Convolution) -> float:
    """Return the multiplications for one pixel over their rate, in the blocks of rows that suit best."""
    groups = op.weight.reshape(op.groups, op.weight.shape[0] // op.groups, -1)
    if groups.shape[1] == 1:
        return int(np.count_nonzero(op.weight))
    return min(multiplications(groups, rows) / RATES[rows] for rows in (8, 4, 1))


def _rounded(array: Doubles) -> Floats:
    return np.ascontiguousarray(array, np.float32)
