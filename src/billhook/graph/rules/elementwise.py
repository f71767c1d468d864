"""Element-wise operators with broadcasting: channels that meet leave together."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from billhook.graph.labels import Dims, Labels
from billhook.graph.rules._base import Call, Flow, rule, shape_of


@rule(
    "add sub rsub mul div true_divide floor_divide remainder fmod pow maximum minimum relu relu6 "
    "leaky_relu rrelu elu selu celu gelu silu mish sigmoid log_sigmoid hardsigmoid hardswish hardtanh "
    "tanh softplus softsign softshrink hardshrink tanhshrink threshold clamp clamp_min clamp_max clip "
    "exp exp2 expm1 log log1p log2 log10 sqrt rsqrt reciprocal abs neg negative sign square sin cos "
    "erf floor ceil round trunc where masked_fill eq ne lt le gt ge logical_and logical_or "
    "logical_not logical_xor bitwise_and bitwise_or bitwise_not isnan isinf nan_to_num lerp addcmul "
    "addcdiv copy fake_quantize_per_tensor_affine atan2 hypot softmax_backward"
)
def elementwise(flow: Flow, call: Call) -> Dims:
    """Dimensions are aligned from the right; equal sizes unify, size 1 is spread."""
    return join(flow, call, call.operands)


@rule("prelu", "_prelu_kernel")
def prelu(flow: Flow, call: Call) -> Dims:
    """One slope per channel (dimension 1), or one for all."""
    dims = flow.dims(call["self"])
    slopes = flow.dims(call["weight"])[-1] if call.name == "prelu" else None
    if call.name != "prelu":
        return join(flow, call, call.operands)
    if slopes is not None and len(slopes) > 1:
        flow.unify(call, dims[min(1, len(dims) - 1)], slopes)
        flow.role(call["weight"], 0, "through")
    return dims


@rule("glu")
def glu(flow: Flow, call: Call) -> Dims:
    """First half × sigmoid(second half): the halves leave together."""
    dims = flow.dims(call["self"])
    dim = call["dim"] % len(dims)
    labels = dims[dim]
    if labels is not None:
        half = len(labels) // 2
        flow.unify(call, labels[:half], labels[half:])
        dims[dim] = labels[:half]
    return dims


def join(flow: Flow, call: Call, operands: Sequence[fx.Node]) -> Dims:
    """Unify the labels of broadcast operands and return those of the result."""
    shapes = [shape_of(o) for o in operands]
    rank = max((len(s) for s in shapes), default=0)
    result: Dims = [None] * rank
    for position in range(1, rank + 1):
        size = max(s[-position] for s in shapes if len(s) >= position)
        meeting: list[Labels | None] = []
        for operand, shape in zip(operands, shapes, strict=True):
            if len(shape) < position:
                continue
            labels = flow.dims(operand)[-position]
            if shape[-position] == size:
                meeting.append(labels)
                if labels is not None:
                    flow.role(operand, len(shape) - position, "through")
            elif labels is not None:
                flow.freeze(call, labels, "a single channel is spread over many")
        present = [m for m in meeting if m is not None]
        if not present:
            continue
        for other in meeting[1:] if meeting[0] is not None else meeting:
            flow.unify(call, present[0], other)
        # A dimension that met one without channels is frozen by now; it keeps its labels.
        result[rank - position] = present[0]
    return result
