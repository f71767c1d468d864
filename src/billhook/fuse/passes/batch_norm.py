"""Batch norms, scales and biases vanish in the layers around them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from billhook.fuse._algebra import exact, folded_before, folded_behind, scale_and_shift
from billhook.fuse._match import block_of, name_of, norm_of
from billhook.fuse.passes._folding import (
    addends,
    calls_of,
    channel_axis,
    dtype_of,
    linear_of,
    occupied,
    parts_of,
    store,
    weighted_of,
    window_of,
)
from billhook.graph.fusions import Pass, Refusal, Site
from billhook.graph.layers import LayeredNetwork
from billhook.graph.rules._base import Call, bind, shape_of
from billhook.registry import Info

INFO = Info(
    title="batch norms, scales and biases folded into the layers before or behind them",
    source="Li et al., TCAD 39(11) 2020, arXiv:2010.16165",
    notes="for trained networks: the running statistics become constants",
)


class BatchNorm(Pass):
    """y = s · x + t per channel goes into the layers that make x, or into those that read y.

    Such maps are batch norms with their running statistics, products with constants and sums with
    constants, if these have one number per channel. A convolution W, b in front becomes sW, sb + t; of a sum
    or a concatenation of layers each takes its part. Where that cannot be, all layers that read y take it up:
    W'[:, i] = sᵢW[:, i], b' = b + Σᵢ tᵢ Σₖ W[:, i, k]. This is not exact where a window reads padding, which
    is zero and not t, so there it is refused unless t is zero.

    Batch norms that read a shared value and feed an activation (pre-activation networks, DenseNet) stay.
    MACs stay the same.

    References:
        Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference", CVPR 2018, section 3.2. arXiv:1712.05877.
    """

    kind = "fold"
    operators = ("batch_norm",)

    def find(self, network: LayeredNetwork, settings: Mapping[str, Any]) -> Iterator[Site | Refusal]:  # noqa: D102
        calls = calls_of(network)
        for node in network.graph.nodes:
            found = _map_of(network, node)
            if found is None:
                if name_of(node) == "batch_norm":
                    why = "it normalises by its batch, or shares its statistics, so it is no constant"
                    yield Refusal(block_of(node), "batch_norm", why)
                continue
            norm = norm_of(network, node)
            at = str(node.target) if norm is not None else block_of(node)
            if norm is not None and calls[node.target] > 1:
                yield Refusal(at, "batch_norm", f"{at} is called more than once")
                continue
            behind = _producers(network, found.source, found.axis, calls)
            if not isinstance(behind, str):
                yield Site(at, "batch_norm", match=_Fold(found, behind=tuple(behind)))
                continue
            before = _readers(network, found, calls)
            if not isinstance(before, str):
                yield Site(at, "batch_norm", match=_Fold(found, before=tuple(before)))
            elif norm is not None or weighted_of(network, found.source) is not None:
                yield Refusal(at, "batch_norm", f"{behind}, and {before}")

    def rewrite(self, network: LayeredNetwork, site: Site) -> None:  # noqa: D102
        fold: _Fold = site.match
        scale, shift = fold.map.values(network)
        for part in fold.behind:
            s, t = (v if len(v) == 1 else v[part.start : part.stop] for v in (scale, shift))
            _fold_behind(part.layer, s, t if part.takes_shift else torch.zeros_like(t))
        for layer in fold.before:
            groups = layer.groups if not isinstance(layer, nn.Linear) else 1
            store(layer, *folded_before(layer.weight, layer.bias, groups, scale, shift), like=layer)
        fold.map.node.replace_all_uses_with(fold.map.source)


@dataclass(frozen=True)
class _Map:
    """y = scale · x + shift along one dimension.

    Attributes:
        node: What computes y: a batch norm, or a product or sum with a constant.
        source: What computes x.
        axis: The dimension; None if scale and shift are single numbers.
        constant: The constant, None for a batch norm.
    """

    node: fx.Node
    source: fx.Node
    axis: int | None
    constant: Any = None

    def values(self, network: LayeredNetwork) -> tuple[Tensor, Tensor]:
        """Return scale and shift: [channels], or [1] if they are single numbers."""
        norm = norm_of(network, self.node)
        if norm is not None:
            return scale_and_shift(norm)
        value = self.constant
        if isinstance(value, fx.Node):
            value = _tensor(network, value)
        number = exact(torch.as_tensor(value)).flatten()
        one, zero = torch.ones_like(number), torch.zeros_like(number)
        name = name_of(self.node)
        if name in ("add", "sub"):
            sign = bind(self.node).get("alpha")
            return one, number * (1 if sign is None else sign) * (1 if name == "add" else -1)
        return (number if name == "mul" else one / number), zero


@dataclass(frozen=True)
class _Part:
    """A layer in front, the channels of the map that are its own, and if it takes up the shift."""

    layer: Any
    start: int
    stop: int
    takes_shift: bool


@dataclass(frozen=True)
class _Fold:
    """Which layers in front of a map, or behind it, take it up."""

    map: _Map
    behind: tuple[_Part, ...] = ()
    before: tuple[Any, ...] = ()


def _map_of(network: LayeredNetwork, node: fx.Node) -> _Map | None:
    """Return what `node` computes as a map per channel, None if it is not one."""
    if node.op == "call_module":
        return _Map(node, node.all_input_nodes[0], 1) if norm_of(network, node) is not None else None
    if name_of(node) not in ("mul", "div", "add", "sub") or not hasattr(node.target, "_schema"):
        return None
    call = bind(node)
    for x, constant in _operands(call):
        if not isinstance(x, fx.Node) or x.op == "get_attr":
            continue
        same = shape_of(x) == shape_of(node) and dtype_of(x) == dtype_of(node)
        if not same or call.get("rounding_mode") is not None:
            return None
        if isinstance(constant, (int, float)) and not isinstance(constant, bool):
            return _Map(node, x, None, constant)
        if isinstance(constant, fx.Node) and _tensor(network, constant) is not None:
            shape = shape_of(constant)
            wide = [i + len(shape_of(node)) - len(shape) for i, size in enumerate(shape) if size != 1]
            return _Map(node, x, wide[0] if wide else None, constant) if len(wide) < 2 else None
    return None


def _operands(call: Call) -> list[tuple[Any, Any]]:
    """Return which operand may be the value and which the constant."""
    a, b = call.get("self"), call.get("other")
    swapped = call.name == "mul" or (call.name == "add" and call.get("alpha") in (None, 1))
    return [(a, b), (b, a)] if swapped else [(a, b)]


def _tensor(network: LayeredNetwork, node: fx.Node) -> Tensor | None:
    """Return the parameter or buffer that `node` fetches, None if there is none or it may change."""
    if node.op != "get_attr":
        return None
    value: Any = network
    for part in str(node.target).split("."):
        value = getattr(value, part)
    fetched = [n for n in network.graph.nodes if n.op == "get_attr" and n.target == node.target]
    schemas = [getattr(u.target, "_schema", None) for n in fetched for u in n.users]
    changes = any(s is not None and s.is_mutable for s in schemas)
    return value if isinstance(value, Tensor) and not changes else None


def _producers(
    network: LayeredNetwork, value: fx.Node, axis: int | None, calls: Counter[Any], start: int = 0
) -> list[_Part] | str:
    """Return the layers that together make `value`, or why they cannot take up a map behind it."""
    layer = linear_of(network, value)
    if layer is not None:
        if axis not in (None, channel_axis(layer, value)):
            return f"it is not the channels of {value.target} that it scales"
        size = shape_of(value)[channel_axis(layer, value)]
        return occupied(calls, value) or [_Part(layer, start, start + size, True)]
    side, found = parts_of(value), addends(value)
    operands: list[tuple[fx.Node, int]] = []
    if side is not None and axis == side[1]:
        for part in side[0]:
            operands.append((part, start))
            start += shape_of(part)[side[1]]
    elif found is not None:
        operands = [(v, start) for v in found]
    if not operands:
        return "it reads no layer's output"
    if len(value.users) > 1:
        return "what it reads is read by others, too"
    result: list[_Part] = []
    for operand, at in operands:
        parts = _producers(network, operand, axis, calls, at)
        if isinstance(parts, str):
            return parts
        once = found is not None and bool(result)  # a sum shifts once
        result += [_Part(p.layer, p.start, p.stop, p.takes_shift and not once) for p in parts]
    return result


def _readers(network: LayeredNetwork, found: _Map, calls: Counter[Any]) -> list[Any] | str:
    """Return the layers that alone read what a map computes, or why they cannot take it up."""
    result = []
    for user in found.node.users:
        layer = weighted_of(network, user)
        if layer is None:
            return _follows(user)
        if calls[user.target] > 1:
            return f"{user.target} is called more than once"
        if found.axis not in (None, channel_axis(layer, found.node)):
            return f"it is not the channels of {user.target} that it scales"
        window = window_of(layer)
        padded = window is None or any(window.padding)
        if padded and bool(found.values(network)[1].any()):
            return "zero padding follows"
        result.append(layer)
    return result or "nothing reads it"


def _follows(user: fx.Node) -> str:
    """Return what stands behind a map, in words."""
    if user.op == "output":
        return "its result leaves the network"
    if user.op == "call_module":
        return f"{user.target} follows"
    name, tags = name_of(user), getattr(user.target, "tags", ())
    if name == "add":
        return "an addition follows"
    activation = torch.Tag.pointwise in tags and len(user.all_input_nodes) == 1
    return "an activation follows" if activation else f"{name} follows"


def _fold_behind(layer: Any, scale: Tensor, shift: Tensor) -> None:
    """Scale and shift what a layer makes."""
    if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return store(layer, *folded_behind(layer.weight, layer.bias, scale, shift), like=layer)
    ones = torch.ones(layer.num_features, dtype=torch.float64)
    weight, bias = (ones, ones - 1) if layer.weight is None else (layer.weight, layer.bias)
    bias = ones - 1 if bias is None else bias
    store(layer, *folded_behind(weight, bias, scale, shift), like=layer)  # type: ignore[arg-type]
    layer.affine = True


ENTRY = BatchNorm()
