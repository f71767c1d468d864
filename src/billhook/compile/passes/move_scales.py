"""Pass: scales and shifts per channel move to where they cost nothing.

s · (a · g) with one g per channel    a · (s · g)
mean(s · x + t), and average pooling  s · mean(x) + t
what only weights read in the end     into these weights
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from billhook.compile.ir import Affine, Binary, Convolution, Floats, Linear, Mean, Network, Op, Pool, Value
from billhook.compile.passes.fold_affine import absorbed, can_absorb

Readers = Mapping[Value, list[Op]]


def move_scales(network: Network) -> Network:
    """Return the network with fewer `Affine` over whole planes."""
    return _to_weights(_to_vectors(network))


def _to_vectors(network: Network) -> Network:
    """Scale the numbers by channel that planes are multiplied with or divided by, not the product."""
    uses = network.uses
    at: dict[Value, int] = {}
    ops: list[Op] = []
    for op in network:
        place = at.get(op.inputs[0]) if isinstance(op, Affine) and not op.shift.any() else None
        product = None if place is None else ops[place]
        if (
            isinstance(op, Affine)
            and place is not None
            and isinstance(product, Binary)
            and product.function == "multiply"
            and not product.activation
            and uses[product.output] == 1
            and product.inputs[1].channels == op.output.channels
            and product.inputs[1].is_vector
            and not op.output.is_vector
        ):
            factor = product.inputs[1]
            scaled = replace(factor, name=f"{op.output.name}.factor")
            ops[place] = Affine((factor,), scaled, op.scale, op.shift)
            ops.append(
                replace(
                    product, inputs=(product.inputs[0], scaled), output=op.output, activation=op.activation
                )
            )
        else:
            ops.append(op)
        at[op.output] = len(ops) - 1
    return network.with_ops(ops)


def _to_weights(network: Network) -> Network:
    """Leave out what every reader can do with its weights, directly or behind means and averages."""
    readers: dict[Value, list[Op]] = {v: [] for v in network.values}
    for op in network:
        for value in op.inputs:
            readers[value].append(op)
    outputs = {p.value for p in network.outputs}
    pending: dict[Value, tuple[Floats, Floats]] = {}
    moved: dict[Value, Value] = {}
    ops: list[Op] = []
    for op in network:
        scaled = pending.get(op.inputs[0])
        op = op.reading(moved)
        alone = isinstance(op, Affine) and scaled is None and not op.activation
        if isinstance(op, Affine) and alone and _all_absorb(op.output, op, readers, outputs):
            pending[op.output] = op.scale, op.shift
            moved[op.output] = op.inputs[0]
            continue
        if scaled is not None and isinstance(op, Convolution | Linear):
            op = absorbed(Affine(op.inputs[:1], op.inputs[0], *scaled), op)
        elif scaled is not None:
            pending[op.output] = scaled
        ops.append(op)
    return network.with_ops(ops)


def _all_absorb(value: Value, scale: Affine, readers: Readers, outputs: set[Value]) -> bool:
    def absorbs(op: Op) -> bool:
        if isinstance(op, Convolution | Linear):
            return value not in op.inputs[1:] and can_absorb(scale, op)
        passes = isinstance(op, Mean) or (isinstance(op, Pool) and _commutes(op, scale))
        return passes and not op.activation and _all_absorb(op.output, scale, readers, outputs)

    return value not in outputs and bool(readers[value]) and all(absorbs(op) for op in readers[value])


def _commutes(op: Pool, scale: Affine) -> bool:
    """Return True if the pool of scaled planes is the scaled pool: averages count zeros around planes."""
    if op.mode == "max":
        return bool((scale.scale > 0).all())
    return op.mode == "average_inside" or not any(op.padding) or not scale.shift.any()
