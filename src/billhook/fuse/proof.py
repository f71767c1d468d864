"""What values a network can take, whatever its weights and inputs are: bounds proved from the graph alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from torch import Tensor, fx, nn

from billhook.fuse._match import module_of, name_of
from billhook.fuse.copies import ChannelCopy
from billhook.graph.capture import layer_of
from billhook.graph.layers import LayeredNetwork
from billhook.graph.memory import Memory
from billhook.graph.rules._base import Call, bind

Range = tuple[float, float]
UNKNOWN: Range = (-inf, inf)

# The result holds nothing but values of the operand, or means of them.
_PARTS = frozenset(("split", "split_with_sizes", "chunk", "unbind", "tensor_split"))
_ONE_BY_ONE = (
    "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d mean amax amin slice select narrow "
    "index_select gather index view reshape _unsafe_view flatten unflatten squeeze unsqueeze expand "
    "expand_as permute transpose t contiguous clone alias detach roll flip repeat unfold channel_shuffle "
    "pixel_shuffle upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d "
    "upsample_bilinear2d upsample_trilinear3d"
)
_PASSING = _PARTS | frozenset(_ONE_BY_ONE.split())
# The result is in this range, whatever the operand is.
_BOUNDED: Mapping[str, Range] = {
    "sigmoid": (0, 1), "hardsigmoid": (0, 1), "softmax": (0, 1), "_softmax": (0, 1), "tanh": (-1, 1),
    "softsign": (-1, 1), "sin": (-1, 1), "cos": (-1, 1), "exp": (0, inf), "abs": (0, inf),
    "square": (0, inf), "sqrt": (0, inf),
}  # fmt: skip
# f(0) = 0, and f(x) is in [0, x] for x > 0.
_SHRINKING = frozenset(("silu", "gelu", "hardswish", "mish", "softshrink", "hardshrink"))
# f(x) = x for x > 0, unless scaled.
_LINEAR_ABOVE_ZERO = frozenset(("leaky_relu", "prelu", "elu", "celu", "rrelu"))


def nonnegative(
    network: LayeredNetwork, node: fx.Node, known: Mapping[fx.Node, Range] | None = None
) -> str | None:
    """Return None if no entry of the value can be negative, else why that is not certain.

    Args:
        network: Plain layers.
        node: The value.
        known: What `ranges` has found, if somebody has asked already.
    """
    known = ranges(network) if known is None else known
    if known[node][0] >= 0:
        return None
    if (changer := in_place_operator(network.graph)) is not None:
        where = layer_of(changer)
        return f"{name_of(changer)!r}{f' in {where}' if where else ''} works in place"
    culprit = _origin(node, known)
    if culprit.op == "placeholder":
        return "the network's input may be negative"
    what = str(culprit.target) if culprit.op in ("call_module", "get_attr") else name_of(culprit)
    where = layer_of(culprit) if culprit.op == "call_function" else ""
    return f"the result of {what!r}{f' in {where}' if where else ''} may be negative"


def ranges(network: LayeredNetwork) -> dict[fx.Node, Range]:
    """Return (lower bound, upper bound) of every value; infinite where nothing is certain.

    Bounds hold for all inputs and all weights, so training does not change them. As long as any operator
    works in place, nothing is certain.
    """
    if in_place_operator(network.graph) is not None:
        return dict.fromkeys(network.graph.nodes, UNKNOWN)
    found: dict[fx.Node, Range] = {}
    for node in network.graph.nodes:
        found[node] = _range(network, node, found)
    return found


def unchanged_by(node: fx.Node) -> Range | None:
    """Return the range of values that an activation passes on as they are, None for other operators."""
    if node.op != "call_function" or len(node.all_input_nodes) != 1:
        return None
    call = bind(node)
    if call.name in ("relu", "leaky_relu", "celu") or (call.name == "elu" and call["scale"] == 1):
        return 0, inf
    if call.name == "relu6":
        return 0, 6
    if call.name in ("hardtanh", "clamp", "clamp_min", "clamp_max"):
        least, most = call.get("min_val", "min"), call.get("max_val", "max")
        return -inf if least is None else least, inf if most is None else most
    return None


def inside(inner: Range, outer: Range) -> bool:
    """Return True if the first range is a part of the second."""
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _range(network: LayeredNetwork, node: fx.Node, found: Mapping[fx.Node, Range]) -> Range:
    if node.op == "call_module":
        return _layer_range(module_of(network, node), found[node.all_input_nodes[0]])
    if node.op != "call_function" or not node.all_input_nodes:
        return UNKNOWN
    call = bind(node)
    rule = _RULES.get(call.name)
    if rule is not None:
        return rule(call, found)
    x = _of(node.all_input_nodes[0], found)
    if call.name in _PASSING and call.get("dtype") is None:
        return x
    if call.name in _BOUNDED:
        return _BOUNDED[call.name]
    if call.name in _SHRINKING:
        return (0, max(x[1], 0)) if x[0] >= 0 else (-inf, max(x[1], 0))
    if call.name in _LINEAR_ABOVE_ZERO and call.get("scale") in (None, 1):
        return x if x[0] >= 0 else UNKNOWN
    return UNKNOWN


def _layer_range(layer: nn.Module | None, x: Range) -> Range:
    if isinstance(layer, ChannelCopy):
        within = bool(((layer.gate >= 0) & (layer.gate <= 1)).all())
        return _hull(x, (0, 0)) if within else UNKNOWN
    if isinstance(layer, nn.Dropout | nn.Dropout2d) and layer.p < 1:
        return _dropped(x, layer.p)
    if isinstance(layer, nn.PReLU):
        return x if x[0] >= 0 else UNKNOWN
    return UNKNOWN


def _dropped(x: Range, p: float) -> Range:
    low, high = _hull(x, (0, 0))
    return low / (1 - p), high / (1 - p)  # what stays is larger in training


def _dropout(call: Call, found: Mapping[fx.Node, Range]) -> Range:
    return _dropped(_of(call["input"], found), call["p"]) if call["p"] < 1 else UNKNOWN


def _part(call: Call, found: Mapping[fx.Node, Range]) -> Range:
    whole, position = call.node.args
    assert isinstance(whole, fx.Node)
    return found[whole] if position == 0 or name_of(whole) in _PARTS else UNKNOWN  # else: positions of maxima


def _relu(call: Call, found: Mapping[fx.Node, Range]) -> Range:
    low, high = _of(call["self"], found)
    return max(low, 0), max(high, 0)


def _relu6(call: Call, found: Mapping[fx.Node, Range]) -> Range:
    low, high = _relu(call, found)
    return min(low, 6), min(high, 6)


def _softplus(call: Call, found: Mapping[fx.Node, Range]) -> Range:
    return (0, inf) if call["beta"] > 0 else UNKNOWN


def _clamp(call: Call, found: Mapping[fx.Node, Range]) -> Range:
    low, high = _of(call["self"], found)
    least, most = (call.get(*names) for names in (("min", "min_val"), ("max", "max_val")))
    if isinstance(least, fx.Node) or isinstance(most, fx.Node):
        return UNKNOWN
    if least is not None:
        low, high = max(low, least), max(high, least)
    if most is not None:
        low, high = min(low, most), min(high, most)
    return low, high


def _average(call: Call, found: Mapping[fx.Node, Range]) -> Range:
    x = _of(call["self"], found)
    if call.get("divisor_override") is not None:
        return (0, inf) if x[0] >= 0 and call["divisor_override"] > 0 else UNKNOWN
    return _hull(x, (0, 0)) if any(_numbers(call["padding"])) else x


def _padded(call: Call, found: Mapping[fx.Node, Range]) -> Range:
    x = _of(call["self"], found)
    if call.get("mode") not in (None, "constant"):
        return x
    value = call.get("value") or 0
    return UNKNOWN if isinstance(value, fx.Node) else _hull(x, (float(value), float(value)))


def _joined(call: Call, found: Mapping[fx.Node, Range]) -> Range:
    return _hull(*(_of(n, found) for n in call.operands)) if call.operands else UNKNOWN


def _sum(call: Call, found: Mapping[fx.Node, Range]) -> Range:
    if call.get("alpha") not in (None, 1):
        return UNKNOWN
    a, b = _of(call["self"], found), _of(call["other"], found)
    return a[0] + b[0], a[1] + b[1]


def _product(call: Call, found: Mapping[fx.Node, Range]) -> Range:
    if call["self"] is call["other"]:
        return 0, inf
    a, b = _of(call["self"], found), _of(call["other"], found)
    corners = [0.0 if 0 in (p, q) else p * q for p in a for q in b]  # 0 · ∞: the bound is not reached
    return min(corners), max(corners)


def _quotient(call: Call, found: Mapping[fx.Node, Range]) -> Range:
    divisor = call["other"]
    if isinstance(divisor, fx.Node) or divisor <= 0 or call.get("rounding_mode") is not None:
        return UNKNOWN
    low, high = _of(call["self"], found)
    return low / divisor, high / divisor


def _larger(call: Call, found: Mapping[fx.Node, Range]) -> Range:
    a, b = _of(call["self"], found), _of(call["other"], found)
    return max(a[0], b[0]), max(a[1], b[1])


def _power(call: Call, found: Mapping[fx.Node, Range]) -> Range:
    even = isinstance(call["exponent"], int | float) and call["exponent"] % 2 == 0
    return (0, inf) if even or _of(call["self"], found)[0] >= 0 else UNKNOWN


def _total(call: Call, found: Mapping[fx.Node, Range]) -> Range:
    return (0, inf) if _of(call["self"], found)[0] >= 0 else UNKNOWN


_RULES: Mapping[str, Callable[[Call, Mapping[fx.Node, Range]], Range]] = {
    "relu": _relu, "relu6": _relu6, "softplus": _softplus, "dropout": _dropout, "feature_dropout": _dropout,
    "getitem": _part, "clamp": _clamp, "clamp_min": _clamp, "clamp_max": _clamp, "hardtanh": _clamp,
    "avg_pool1d": _average, "avg_pool2d": _average, "avg_pool3d": _average, "pad": _padded,
    "constant_pad_nd": _padded, "cat": _joined, "stack": _joined, "add": _sum, "mul": _product,
    "div": _quotient, "maximum": _larger, "pow": _power, "sum": _total,
}  # fmt: skip


def _of(value: Any, found: Mapping[fx.Node, Range]) -> Range:
    if isinstance(value, fx.Node):
        return found[value]
    return (float(value), float(value)) if isinstance(value, int | float) else UNKNOWN


def _hull(*parts: Range) -> Range:
    return min(p[0] for p in parts), max(p[1] for p in parts)


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def in_place_operator(graph: fx.Graph) -> fx.Node | None:
    """Return the first operator that changes a value in place, None if there is none."""
    return next((n for n in graph.nodes if n.op == "call_function" and Memory.changes(n)), None)


def _origin(node: fx.Node, known: Mapping[fx.Node, Range]) -> fx.Node:
    """Return the operator because of which nothing is certain: the last one that makes values of its own."""
    while node.op == "call_function" and (
        name_of(node) in _PASSING or name_of(node) in ("cat", "add", "pad")
    ):
        unknown = [
            n for n in node.all_input_nodes if known[n][0] < 0 and isinstance(n.meta.get("val"), Tensor)
        ]
        if not unknown:
            break
        node = unknown[0]
    return node
