"""Pass: a scale and shift per channel moves into the weights before or behind it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from billhook.compile.ir import NONE, Activate, Affine, Convolution, Floats, Linear, Network, Op, Value

Weighted = Convolution | Linear


def fold_affine(network: Network) -> Network:
    """Return the network with fewer `Affine`.

    Where exactly one operator reads what an operator without activation makes: a convolution, linear layer
    or `Affine` takes over the `Affine` behind it, then a linear layer or convolution the one before it (not
    where the convolution pads with zeros, which a shift does not reach). Arithmetic is float64.
    """
    return _without_identities(_into_readers(_into_makers(network)))


def _into_makers(network: Network) -> Network:
    uses = network.uses
    at: dict[Value, int] = {}
    ops: list[Op] = []
    for op in network:
        place = at.get(op.inputs[0]) if isinstance(op, Affine) else None
        maker = None if place is None else ops[place]
        if (
            isinstance(op, Affine)
            and place is not None
            and isinstance(maker, Convolution | Linear | Affine)
            and len(maker.inputs) == 1
            and not maker.activation
            and uses[maker.output] == 1
        ):
            ops[place] = _behind(maker, op)
        else:
            place = len(ops)
            ops.append(op)
        at[op.output] = place
    return network.with_ops(ops)


def _behind(maker: Weighted | Affine, op: Affine) -> Op:
    """Return scale · (what `maker` makes) + shift as one operator."""
    scale = op.scale.astype(np.float64)
    if isinstance(maker, Affine):
        both: Op = replace(
            maker,
            scale=_rounded(scale * maker.scale),
            shift=_rounded(scale * maker.shift + op.shift),
        )
    else:
        per_output = scale.reshape(-1, *[1] * (maker.weight.ndim - 1))
        both = replace(
            maker,
            weight=_rounded(per_output * maker.weight),
            bias=_rounded(scale * maker.bias + op.shift),
        )
    return replace(both, output=op.output, activation=op.activation)


def _into_readers(network: Network) -> Network:
    uses = network.uses
    affine: dict[Value, Affine] = {}
    gone: set[Value] = set()
    ops: list[Op] = []
    for op in network:
        before = affine.get(op.inputs[0]) if isinstance(op, Convolution | Linear) else None
        if isinstance(op, Convolution | Linear) and before is not None and can_absorb(before, op):
            gone.add(before.output)
            op = absorbed(before, op)
        if isinstance(op, Affine) and not op.activation and uses[op.output] == 1:
            affine[op.output] = op
        ops.append(op)
    return network.with_ops([op for op in ops if op.output not in gone])


def can_absorb(before: Affine, op: Weighted) -> bool:
    """Return True if the weights of `op` can do what `before` does to the value that `op` multiplies."""
    read_as_sum = before.output in op.inputs[1:]
    padded = isinstance(op, Convolution) and any(op.padding)
    return not read_as_sum and (not padded or not before.shift.any())


def absorbed(before: Affine, op: Weighted) -> Op:
    """Return `op` of scale · x + shift as one operator."""
    scale, shift = before.scale.astype(np.float64), before.shift.astype(np.float64)
    if isinstance(op, Convolution):
        outputs, inputs = op.weight.shape[:2]
        of_output = np.arange(outputs) // (outputs // op.groups)
        channels = of_output[:, None] * inputs + np.arange(inputs)  # which every output reads
        scales, shifts = scale[channels][..., None, None], shift[channels][..., None, None]
        sums = (shifts * op.weight).sum((1, 2, 3))
    else:
        pixels = op.inputs[0].pixels
        scales = np.repeat(scale, pixels)
        sums = op.weight.astype(np.float64) @ np.repeat(shift, pixels)
    return replace(
        op,
        inputs=(*before.inputs, *op.inputs[1:]),
        weight=_rounded(scales * op.weight),
        bias=_rounded(op.bias + sums),
    )


def _without_identities(network: Network) -> Network:
    moved: dict[Value, Value] = {}
    ops: list[Op] = []
    for op in network:
        op = op.reading(moved)
        if not isinstance(op, Affine) or (op.scale != 1).any() or op.shift.any():
            ops.append(op)
        elif op.activation == NONE:
            moved[op.output] = op.inputs[0]
        else:
            ops.append(Activate(op.inputs, op.output, activation=op.activation))
    return network.with_ops(ops, moved)


def _rounded(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Floats:
    return np.ascontiguousarray(values, dtype=np.float32)
