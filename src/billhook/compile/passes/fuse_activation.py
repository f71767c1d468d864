"""Pass: an activation is applied by the operator that makes its input."""

from __future__ import annotations

from dataclasses import replace

from billhook.compile.ir import (
    NONE,
    Activate,
    Activation,
    Affine,
    Binary,
    Convolution,
    Linear,
    Mean,
    Network,
    Op,
    Pool,
    Value,
)

_MAKERS = (Convolution, Linear, Affine, Binary, Mean)
_RISING = ("clip", "sigmoid", "tanh", "hardsigmoid")
_RANGES = {"sigmoid": (0.0, 1.0), "hardsigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}


def fuse_activation(network: Network) -> Network:
    """Return the network with fewer `Activate`.

    An activation that never falls may change places with the largest number of a window: behind such a pool,
    it is applied by what makes the pool's input. Two bounds in a row are one; bounds that nothing exceeds go.
    """
    return _into_makers(_before_pools(network))


def _before_pools(network: Network) -> Network:
    uses = network.uses
    at: dict[Value, int] = {}
    ops: list[Op] = []
    for op in network:
        place = at.get(op.inputs[0]) if isinstance(op, Activate) and _rises(op) else None
        pool = None if place is None else ops[place]
        maker = ops[at[pool.inputs[0]]] if isinstance(pool, Pool) and pool.inputs[0] in at else None
        if (
            place is None
            or maker is None
            or not isinstance(pool, Pool)
            or pool.mode != "max"
            or pool.activation
            or uses[pool.output] != 1
            or uses[maker.output] != 1
            or not _takes(maker)
        ):
            at[op.output] = len(ops)
            ops.append(op)
            continue
        ops[at[maker.output]] = replace(maker, activation=op.activation)
        ops[place] = replace(pool, output=op.output)
        at[op.output] = place
    return network.with_ops(ops)


def _rises(op: Op) -> bool:
    leaky = op.activation.shape == "leaky" and op.activation.low >= 0
    return leaky or op.activation.shape in _RISING


def _into_makers(network: Network) -> Network:
    uses = network.uses
    at: dict[Value, int] = {}
    moved: dict[Value, Value] = {}
    ops: list[Op] = []
    for op in network:
        op = op.reading(moved)
        place = at.get(op.inputs[0]) if isinstance(op, Activate) else None
        maker = None if place is None else ops[place]
        both = None if maker is None else _composed(maker.activation, op.activation)
        if maker is not None and both == maker.activation:
            moved[op.output] = maker.output
        elif (
            place is not None
            and maker is not None
            and both is not None
            and uses[maker.output] == 1
            and _takes(replace(maker, activation=NONE))
        ):
            ops[place] = replace(maker, output=op.output, activation=both)
            at[op.output] = place
        else:
            at[op.output] = len(ops)
            ops.append(op)
    return network.with_ops(ops, moved)


def _composed(first: Activation, then: Activation) -> Activation | None:
    """Return one activation for two in a row, None if there is none."""
    if not first:
        return then
    if then.shape != "clip":
        return None
    low, high = _RANGES.get(first.shape, (first.low, first.high))
    if then.low <= low and high <= then.high and (first.shape in _RANGES or first.shape == "clip"):
        return first
    if first.shape != "clip" or first.low > first.high or then.low > then.high:
        return None
    return Activation("clip", *(min(max(bound, then.low), then.high) for bound in (first.low, first.high)))


def _takes(op: Op) -> bool:
    averages = isinstance(op, Pool) and op.mode != "max"
    return op.activation == NONE and (averages or isinstance(op, _MAKERS))
