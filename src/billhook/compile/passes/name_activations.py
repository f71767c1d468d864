"""Pass: activations that are written out as arithmetic get their names.

max(x, a · x)                     leaky, for 0 < a <= 1
clip(x + 3, 0, 6) / 6             hardsigmoid
x · sigmoid(x)                    silu
x · hardsigmoid(x)                hardswish
x · clip(x + 3, 0, 6), then / 6   hardswish
max(x, 0) + a · min(x, 0)         max(x, a · x), for a <= 1 by channel and no a = 0, for which a · ∞ is NaN
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from billhook.compile.ir import NONE, RELU, Activate, Activation, Affine, Binary, Network, Op, Shape, Value
from billhook.compile.passes.drop_unused import drop_unused

_GATED: Mapping[str, Shape] = {"sigmoid": "silu", "hardsigmoid": "hardswish"}
_CLOSE = 1e-6  # relative; constants went through float32
_SIX = Activation("clip", 0.0, 6.0)
_BELOW = Activation("clip", float("-inf"), 0.0)

Makers = Mapping[Value, Op]


def name_activations(network: Network) -> Network:
    """Return the network with `Activate` in the place of several operators that compute the same.

    Parts stay that something else reads, too.
    """
    makers: dict[Value, Op] = {}
    ops: list[Op] = []
    for op in network:
        for named in _slopes(op, makers) or [_named(op, makers)]:
            makers[named.output] = named
            ops.append(named)
    return drop_unused(network.with_ops(ops))


def _named(op: Op, makers: Makers) -> Op:
    if op.activation:
        return op
    if isinstance(op, Affine):
        return _sixth(op, makers)
    if not isinstance(op, Binary):
        return op
    for x, y in (op.inputs, op.inputs[::-1]):
        made = makers.get(y)
        if made is None or made.inputs != (x,):
            continue
        if op.function == "multiply" and isinstance(made, Activate) and made.activation.shape in _GATED:
            return Activate((x,), op.output, activation=Activation(_GATED[made.activation.shape]))
        if op.function == "maximum" and isinstance(made, Affine):
            slope = _factor(made)
            if slope is not None and 0 < slope <= 1:
                return Activate((x,), op.output, activation=Activation("leaky", slope))
    return op


def _factor(op: Affine, shift: float = 0.0) -> float | None:
    """Return the scale of what scales all channels alike and shifts by `shift`, else None."""
    alike = (op.scale == op.scale[0]).all() and (op.shift == shift).all()
    return float(op.scale[0]) if alike and not op.activation else None


def _sixth(op: Affine, makers: Makers) -> Op:
    """Return hardsigmoid or hardswish for what divides by 6, if it is one."""
    scale, divided = _factor(op), op.inputs[0]
    if scale is None or abs(6 * scale - 1) > _CLOSE:
        return op
    x = _raised(divided, makers)
    if x is not None:
        return Activate((x,), op.output, activation=Activation("hardsigmoid"))
    product = makers.get(divided)
    if isinstance(product, Binary) and product.function == "multiply" and not product.activation:
        for a, b in (product.inputs, product.inputs[::-1]):
            if _raised(b, makers) is a:
                return Activate((a,), op.output, activation=Activation("hardswish"))
    return op


def _raised(value: Value, makers: Makers) -> Value | None:
    """Return x of clip(x + 3, 0, 6)."""
    clipped = makers.get(value)
    if clipped is None or clipped.activation != _SIX:
        return None
    raised = makers.get(clipped.inputs[0]) if isinstance(clipped, Activate) else clipped
    if not isinstance(raised, Affine) or (raised is not clipped and raised.activation):
        return None
    return raised.inputs[0] if _factor(replace(raised, activation=NONE), shift=3.0) == 1 else None


def _slopes(op: Op, makers: Makers) -> list[Op]:
    """Return two operators for the sum of the positive part and of scaled negative parts, if it is one."""
    if not isinstance(op, Binary) or op.function != "add":
        return []
    for a, b in (op.inputs, op.inputs[::-1]):
        above, scaled = makers.get(a), makers.get(b)
        below = makers.get(scaled.inputs[0]) if isinstance(scaled, Affine) else None
        if (
            isinstance(above, Activate)
            and isinstance(below, Activate)
            and isinstance(scaled, Affine)
            and (above.activation, below.activation, scaled.activation) == (RELU, _BELOW, NONE)
            and above.inputs == below.inputs
            and not scaled.shift.any()
            and (scaled.scale <= 1).all()
            and scaled.scale.all()
        ):
            x = above.inputs[0]
            sloped = replace(
                scaled, inputs=(x,), output=replace(scaled.output, name=f"{op.output.name}.sloped")
            )
            return [sloped, replace(op, inputs=(x, sloped.output), function="maximum")]
    return []
