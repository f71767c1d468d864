"""Average pooling becomes a part of the convolution beside it, or one of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import fx, nn

from billhook.fuse._algebra import exact
from billhook.fuse._kernels import averaging, pooled
from billhook.fuse._match import (
    CONVOLUTIONS,
    Convolution,
    block_of,
    convolution_of,
    free_name,
    name_of,
    shaped_like,
    source_of,
)
from billhook.fuse.passes._blocks import resized, with_kernel
from billhook.fuse.passes._folding import calls_of, dtype_of, occupied, window_of
from billhook.graph.capture import layer_of
from billhook.graph.fusions import Pass, Refusal, Site
from billhook.graph.layers import LayeredNetwork
from billhook.graph.rules._base import Call, bind, shape_of
from billhook.registry import Info

INFO = Info(
    title="average pooling as a convolution, merged with the one beside it",
    source="Li et al., TCAD 39(11) 2020, arXiv:2010.16165",
    notes="reconstructed; by default only where MACs do not rise",
)
# Where the convolution is that pooling is merged with; "swap": both stay, in the other order.
_FORMS = ("behind", "swap", "before", "alone")


@dataclass(frozen=True)
class Pooling:
    """What an average pooling does.

    Attributes:
        size: The window.
        stride: From window to window.
        padding: Zeros on either side, which count.
        divisor: What the sum over a window is divided by.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    divisor: int


class AveragePool(Pass):
    """A convolution and the average pooling behind it become one convolution; so does pooling alone.

    Averaging is linear: a convolution with the constant 1 ÷ p² in every channel. Behind a convolution of
    kernel k and stride s, windows of p pixels make a convolution of kernel k + s (p − 1), whose weights are
    k's, added up over all positions in the window. From 3×3 and 2×2 follows 4×4 at stride 2, with 16/36 of
    the MACs and 16/9 of the weights. That is rewritten wherever it takes no more MACs, which is always
    so while s ≤ k. A 1×1 convolution stays as it is, but pools first: with 1/p² of its MACs.

    With keep_if="always" all pooling is rewritten, though as a convolution it is slower: in front of a
    1×1 convolution both become one with p² times its MACs, elsewhere a depthwise one, whose weights can be
    trained, stands alone. Global pooling then fits one size of image only. It is not merged with the
    classifier behind it, which would multiply the classifier's weights and MACs by the image.

    Pooling is left alone where windows at the border count fewer pixels (ceil_mode,
    count_include_pad=False).

    References:
        Li, Ma, Wang, Liu, Xue, Feng, "Fusion-Catalyzed Pruning for Optimizing Deep Learning on
        Intelligent Edge Devices", IEEE TCAD 39(11), 2020. arXiv:2010.16165.
    Differs from the source:
        Reconstructed; rule A5. That 1×1 convolutions pool first is not in it.
    """

    kind = "widen"
    operators = ("average_pool",)

    def find(self, network: LayeredNetwork, settings: Mapping[str, Any]) -> Iterator[Site | Refusal]:  # noqa: D102
        always = settings.get("keep_if", "cost") == "always"
        calls = calls_of(network)
        for node in list(network.graph.nodes):
            pooling = _pooling(node, always)
            if pooling is None:
                continue
            merges = convolution_of(network, source_of(node)) is not None
            if not (always or merges):
                continue
            at = layer_of(node) or block_of(node)
            form = pooling if isinstance(pooling, str) else _form(network, node, pooling, always, calls)
            if form in _FORMS:
                chosen = {"keep_if": "always" if always else "cost", "form": form}
                yield Site(at, "average_pool", chosen, match=node)
            else:
                yield Refusal(at, "average_pool", form)

    def rewrite(self, network: LayeredNetwork, site: Site) -> None:  # noqa: D102
        _rewrite(network, site.match, str(site.settings["form"]))


def _pooling(node: fx.Node, always: bool) -> Pooling | str | None:
    """Return what `node` averages, None if it does not, or why that is no convolution."""
    name = name_of(node)
    if name in ("avg_pool1d", "avg_pool2d", "avg_pool3d"):
        return _windows(bind(node))
    if not always:  # these fit one size of image only
        return None
    image = shape_of(source_of(node))[2:] if node.all_input_nodes else ()
    if name in ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"):
        result = shape_of(node)[2:]
        if any(n % m for n, m in zip(image, result, strict=True)):
            return f"windows of different sizes make {result} pixels out of {image}"
        size = tuple(n // m for n, m in zip(image, result, strict=True))
        return Pooling(size, size, (0,) * len(size), prod(size))
    if name == "mean" and len(shape_of(source_of(node))) in CONVOLUTIONS:
        dims = bind(node).get("dim")
        every = sorted(d % (len(image) + 2) for d in dims) if dims else []
        if every == list(range(2, len(image) + 2)):
            return Pooling(image, (1,) * len(image), (0,) * len(image), prod(image))
    return None


def _windows(call: Call) -> Pooling | str:
    image = shape_of(call.operands[0])[2:]
    size = _each(call["kernel_size"], image)
    stride = _each(call["stride"], image) if call["stride"] else size
    padding = _each(call["padding"], image)
    rests = [(n + 2 * p - k) % s for n, k, s, p in zip(image, size, stride, padding, strict=True)]
    if call["ceil_mode"] and any(rests):
        return "with ceil_mode windows at the border count fewer pixels"
    if any(padding) and not call["count_include_pad"] and not call.get("divisor_override"):
        return "with count_include_pad=False windows at the border count fewer pixels"
    return Pooling(size, stride, padding, call.get("divisor_override") or prod(size))


def _each(value: Any, image: tuple[int, ...]) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return tuple(int(v) for v in (values * len(image) if len(values) == 1 else values))


def _form(network: LayeredNetwork, node: fx.Node, pooling: Pooling, always: bool, calls: Counter[Any]) -> str:
    """Return one of _FORMS, or why there is none."""
    source = source_of(node)
    layer = convolution_of(network, source)
    if layer is not None:
        why = _obstacle(node, source, layer, pooling) or occupied(calls, source)
        if why is None:
            plain = not always and pooling.divisor == prod(pooling.size)
            return "swap" if plain and _is_pointwise(layer) and set(layer.stride) == {1} else "behind"
        if not always:
            return why
    reader = next(iter(node.users)) if len(node.users) == 1 else None
    follower = convolution_of(network, reader)
    if reader is None or follower is None or len(shape_of(node)) != len(shape_of(source)):
        return "alone"
    return "before" if _is_pointwise(follower) and calls[reader.target] == 1 else "alone"


def _obstacle(node: fx.Node, source: fx.Node, layer: Convolution, pooling: Pooling) -> str | None:
    """Return why pooling cannot be a part of the convolution that it reads, None if it can."""
    if window_of(layer) is None or set(layer.dilation) != {1}:
        return f"the kernel of {source.target} has gaps, or pads one side more than the other"
    if any(pooling.padding):
        return f"zeros around the result of {source.target} are not zeros around its input"
    if _macs(node, _merged(layer, pooling)) > _macs(source, layer.kernel_size):
        return f"one convolution would take more MACs than {source.target} does"
    return None


def _is_pointwise(layer: Convolution) -> bool:
    window = window_of(layer)
    return window is not None and set(window.kernel) == {1} and not any(window.padding)


def _merged(layer: Convolution, pooling: Pooling) -> tuple[int, ...]:
    """Return the kernel's size when it reads all windows at once."""
    sizes = zip(layer.kernel_size, layer.stride, pooling.size, strict=True)
    return tuple(k + s * (p - 1) for k, s, p in sizes)


def _macs(result: fx.Node, kernel: tuple[int, ...]) -> int:
    """Return MACs per image and pair of channels."""
    return prod(shape_of(result)[2:]) * prod(kernel)


def _rewrite(network: LayeredNetwork, node: fx.Node, form: str) -> None:
    pooling = _pooling(node, always=True)
    assert isinstance(pooling, Pooling)
    source = source_of(node)
    if form == "swap":
        _swap(node, source)
    elif form == "behind":
        _merge_behind(network, node, source, pooling)
    elif form == "before":
        _merge_before(network, node, next(iter(node.users)), pooling)
    else:
        _convert(network, node, pooling)


def _swap(node: fx.Node, convolution: fx.Node) -> None:
    """Let the convolution read what pooling makes of its input, not the other way round."""
    x, channels = source_of(convolution), shape_of(source_of(convolution))[1]
    node.replace_all_uses_with(convolution)
    node.replace_input_with(convolution, x)
    convolution.replace_input_with(x, node)
    node.append(convolution)
    convolution.meta["val"] = node.meta["val"]
    resized(node, channels)


def _merge_behind(network: LayeredNetwork, node: fx.Node, source: fx.Node, pooling: Pooling) -> None:
    layer = convolution_of(network, source)
    assert layer is not None
    scale = prod(pooling.size) / pooling.divisor
    weight = pooled(layer.weight, pooling.size, layer.stride) * scale
    bias = None if layer.bias is None else exact(layer.bias) * scale
    stride = tuple(a * b for a, b in zip(layer.stride, pooling.stride, strict=True))
    network.set_submodule(str(source.target), with_kernel(layer, weight, bias, stride=stride))
    _put_in_place(network, node, source)


def _merge_before(network: LayeredNetwork, node: fx.Node, reader: fx.Node, pooling: Pooling) -> None:
    layer = convolution_of(network, reader)
    assert layer is not None
    weight = averaging(layer.weight, pooling.size, pooling.divisor)
    bias = None if layer.bias is None else exact(layer.bias)
    stride = tuple(a * b for a, b in zip(layer.stride, pooling.stride, strict=True))
    wider = with_kernel(layer, weight, bias, stride=stride, padding=pooling.padding)
    network.set_submodule(str(reader.target), wider)
    reader.replace_input_with(node, source_of(node))


def _convert(network: LayeredNetwork, node: fx.Node, pooling: Pooling) -> None:
    """Put a depthwise convolution in the place of pooling."""
    source = source_of(node)
    channels, dimensions, dtype = shape_of(source)[1], len(shape_of(source)), dtype_of(source)
    make: Any = CONVOLUTIONS[dimensions]
    sizes = (pooling.size, pooling.stride, pooling.padding)
    layer = make(channels, channels, *sizes, groups=channels, bias=False, device="meta")
    like = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(()))
    weight = torch.full(layer.weight.shape, 1 / pooling.divisor, dtype=dtype, device=like.device)
    layer.weight = nn.Parameter(weight)
    wanted = layer_of(node)
    if not wanted or wanted in dict(network.named_modules()):  # no layer of its own: a function was called
        wanted = f"{wanted}.average_pool".lstrip(".")
    name = free_name(network, wanted)
    network.add_submodule(name, layer.train(network.training))
    with network.graph.inserting_before(node):
        made = network.graph.call_module(name, (source,))
    _put_in_place(network, node, made)


def _put_in_place(network: LayeredNetwork, node: fx.Node, made: fx.Node) -> None:
    """Let a convolution's value take the place of what pooling has made."""
    shaped_like(made, node)
    if name_of(node) == "mean" and not bind(node)["keepdim"]:
        dimensions = len(bind(node)["dim"])
        size = [*shape_of(node), *(1,) * dimensions]
        made.meta["val"] = torch.empty(size, dtype=dtype_of(node), device="meta")
        with network.graph.inserting_before(node):
            made = shaped_like(
                network.graph.call_function(torch.ops.aten.flatten.using_ints, (made, 1)), node
            )
    node.replace_all_uses_with(made)


ENTRY = AveragePool()
