"""Sizes written into operators: what they become when channels leave.

A captured graph holds numbers such as the shape of a view or the sizes of a split. `rewrite` returns the
arguments of an operator for the smaller network; `Kept` knows which indices of every dimension stay.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from billhook.graph.branches import Branch
from billhook.graph.labels import Labels
from billhook.graph.partition import Partition
from billhook.graph.plan import Keep
from billhook.graph.rules import Call, Flow
from billhook.graph.rules._base import as_int, several, shape_of
from billhook.graph.rules.convolution import whole_groups
from billhook.graph.rules.indexing import slice_of

Mask = npt.NDArray[np.bool_]
Scale = Callable[[Any, int, int], Any]  # (symbolic size, kept, of) → size


class Kept:
    """Which indices of every dimension of every value stay under a plan, and which values leave whole.

    Attributes:
        dropped: Branches that are gone, none of them inside another one.
        nodes: What is in them.
        tensors: Parameters and buffers that are gone with them.
    """

    def __init__(
        self, flow: Flow, partition: Partition, keep: Sequence[Keep | None], dropped: Sequence[Branch] = ()
    ) -> None:
        self._flow, self._partition, self._keep = flow, partition, keep
        self.dropped = tuple(b for b in dropped if not any(b.nodes < other.nodes for other in dropped))
        self.nodes: frozenset[fx.Node] = frozenset().union(*(b.nodes for b in dropped))
        self.tensors: frozenset[str] = frozenset().union(*(b.tensors for b in dropped))

    def labels(self, labels: Labels) -> Mask:
        """Return the mask of a label array."""
        return self._partition.kept(labels, self._keep)

    def dims(self, node: fx.Node) -> list[Mask | None]:
        """Return per dimension a mask, or None where nothing leaves."""
        return [None if d is None else _or_none(self.labels(d)) for d in self._flow.dims(node)]

    def parts(self, node: fx.Node) -> list[list[Mask | None]]:
        """Return `dims` for every result of an operator with several."""
        parts = several(self._flow.values.get(node))
        return [[None if d is None else _or_none(self.labels(d)) for d in dims] for dims in parts]

    def tensor(self, name: str, rank: int) -> list[Mask | None]:
        """Return `dims` for a parameter or buffer."""
        axes = self._partition.axes
        return [_or_none(self.labels(axes[name, a])) if (name, a) in axes else None for a in range(rank)]

    def numbered(self, name: str) -> Mask | None:
        """Return which of the channels stay that the values of a tensor are numbers of; None if all do."""
        labels = self._flow.numbering.get(name)
        return None if labels is None else _or_none(self.labels(labels))


def _or_none(mask: Mask) -> Mask | None:
    return None if mask.all() else mask


def rewrite(call: Call, kept: Kept, scale: Scale) -> tuple[Any, dict[str, Any]] | None:
    """Return (operator, changed arguments by schema name) for the smaller network, None if nothing changes.

    Args:
        call: The operator in the original graph.
        kept: What stays.
        scale: Makes a new size from a symbolic one: size × kept ÷ of.
    """
    handler = _HANDLERS.get(call.name)
    changed = handler(call, kept, scale) if handler is not None else None
    if not changed:
        return None
    target = changed.pop("target", call.node.target)
    return target, changed


def _sizes(entries: Sequence[Any], masks: Sequence[Mask | None], scale: Scale) -> list[Any]:
    result = []
    for entry, mask in zip(entries, masks, strict=True):
        if mask is None or (isinstance(entry, int) and entry == -1):
            result.append(entry)
        elif isinstance(entry, int):
            result.append(int(mask.sum()))
        else:
            result.append(scale(entry, int(mask.sum()), len(mask)))
    return result


def _shape(call: Call, kept: Kept, scale: Scale) -> dict[str, Any]:
    masks = kept.dims(call.node)
    if all(m is None for m in masks):
        return {}
    name = "shape" if "shape" in call.args else "size"
    return {name: _sizes(call[name], masks, scale)}


def _unflatten(call: Call, kept: Kept, scale: Scale) -> dict[str, Any]:
    masks = kept.dims(call.node)
    start = int(call["dim"]) % len(shape_of(call.operands[0]))
    return {"sizes": _sizes(call["sizes"], masks[start : start + len(call["sizes"])], scale)}


def _repeat(call: Call, kept: Kept, scale: Scale) -> dict[str, Any]:
    before, after = kept.dims(call.operands[0]), kept.dims(call.node)
    name = "repeats" if "repeats" in call.args else "dims"
    pad: list[Mask | None] = [None] * (len(after) - len(before))
    spread = [m if b is None else None for b, m in zip(pad + before, after, strict=True)]
    return {name: _sizes(call[name], spread[-len(call[name]) :], scale)}


def _split(call: Call, kept: Kept, scale: Scale) -> dict[str, Any]:
    dim = int(call.get("dim") or 0) % len(shape_of(call.operands[0]))
    masks = [p[dim] for p in kept.parts(call.node)]
    if all(m is None for m in masks):
        return {}
    values = call.node.meta["val"]
    sizes = [as_int(v.shape[dim]) if m is None else int(m.sum()) for v, m in zip(values, masks, strict=True)]
    return {
        "target": torch.ops.aten.split_with_sizes.default,
        "self": call.operands[0],
        "split_sizes": sizes,
        "dim": dim,
    }


def _slice(call: Call, kept: Kept, scale: Scale) -> dict[str, Any]:
    dim = int(call["dim"]) % len(shape_of(call["self"]))
    mask = kept.dims(call["self"])[dim]
    if mask is None:
        return {}
    taken = slice_of(call, len(mask))
    if taken.step != 1 and taken.step is not None:
        # Every second channel of what is left would be others than before: pick them one by one.
        wanted = np.zeros(len(mask), dtype=bool)
        wanted[taken] = True
        index = torch.from_numpy(np.flatnonzero(wanted[mask]))
        return {
            "target": torch.ops.aten.index_select.default,
            "self": call["self"],
            "dim": dim,
            "index": index,
        }
    start, stop = int(mask[: taken.start].sum()), int(mask[: taken.stop].sum())
    if call.name == "narrow":
        return {"start": start, "length": stop - start}
    return {"start": start, "end": stop}


def _slice_scatter(call: Call, kept: Kept, scale: Scale) -> dict[str, Any]:
    dim = int(call["dim"]) % len(shape_of(call["self"]))
    mask = kept.dims(call["self"])[dim]
    if mask is None:
        return {}
    start, stop, _ = slice(call["start"], call["end"], call["step"]).indices(len(mask))
    return {"start": int(mask[:start].sum()), "end": int(mask[:stop].sum())}


def _pad(call: Call, kept: Kept, scale: Scale) -> dict[str, Any]:
    amounts, masks = list(call["pad"]), kept.dims(call.node)
    for position in range(len(amounts) // 2):
        mask = masks[len(masks) - 1 - position]
        if mask is None:
            continue
        for side in (0, 1):
            amount = int(amounts[2 * position + side])
            if amount > 0:
                own = mask[:amount] if side == 0 else mask[len(mask) - amount :]
                amounts[2 * position + side] = int(own.sum())
    return {"pad": amounts}


def _convolution(call: Call, kept: Kept, scale: Scale) -> dict[str, Any]:
    groups = int(call["groups"])
    if groups == 1:
        return {}
    x = call.get("input", "self")
    transposed = call.name.startswith("conv_transpose") or bool(call.get("transposed"))
    spatial = len(shape_of(call["weight"])) - 2
    channel = len(shape_of(x)) - spatial - 1
    mask, axes = kept.dims(x)[channel], kept.dims(call["weight"])
    inputs = shape_of(x)[channel] if mask is None else int(mask.sum())
    if transposed:  # whole groups leave together with their inputs; otherwise the number of groups stays
        return (
            {"groups": inputs * groups // shape_of(x)[channel]}
            if mask is not None and whole_groups(call)
            else {}
        )
    per_group = shape_of(call["weight"])[1] if axes[1] is None else int(axes[1].sum())
    return {"groups": inputs // per_group}


def _layer_norm(call: Call, kept: Kept, scale: Scale) -> dict[str, Any]:
    count = len(call["normalized_shape"])
    return {"normalized_shape": _sizes(call["normalized_shape"], kept.dims(call["input"])[-count:], scale)}


def _group_norm(call: Call, kept: Kept, scale: Scale) -> dict[str, Any]:
    mask = kept.dims(call["input"])[1]
    name = "num_groups" if "num_groups" in call.args else "group"
    if mask is None:
        return {}
    groups = int(call[name])
    left = int(mask.sum())
    changed = {name: left * groups // len(mask) if groups > 1 else 1}
    return changed if name == "num_groups" else {**changed, "C": left}


def _repeat_interleave(call: Call, kept: Kept, scale: Scale) -> dict[str, Any]:
    return {"output_size": None} if call.get("output_size") is not None else {}


_Handler = Callable[[Call, Kept, Scale], dict[str, Any]]
_BY_HANDLER: dict[_Handler, str] = {
    _shape: "view reshape _unsafe_view view_copy _reshape_alias expand expand_copy broadcast_to "
    "zeros ones full empty new_zeros new_ones new_full new_empty",
    _unflatten: "unflatten",
    _repeat: "repeat tile",
    _repeat_interleave: "repeat_interleave",
    _split: "chunk split split_with_sizes tensor_split hsplit "
    "unsafe_split unsafe_chunk unsafe_split_with_sizes",
    _slice: "slice narrow",
    _slice_scatter: "slice_scatter",
    _pad: "pad constant_pad_nd",
    _convolution: "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution",
    _layer_norm: "layer_norm native_layer_norm rms_norm _fused_rms_norm",
    _group_norm: "group_norm native_group_norm",
}
_HANDLERS = {name: handler for handler, names in _BY_HANDLER.items() for name in names.split()}


def symbolic(size: Any, kept: int, of: int) -> Any:
    """`Scale` for sizes that are numbers or `SymInt`s at run time."""
    return size * kept // of


def in_graph(graph: fx.Graph) -> Scale:
    """`Scale` that adds the arithmetic to `graph`."""

    def scale(size: Any, kept: int, of: int) -> Any:
        return graph.call_function(operator.floordiv, (graph.call_function(operator.mul, (size, kept)), of))

    return scale


def arguments(call: Call, changed: dict[str, Any], target: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return (args, kwargs) of `target` with changed values put in; the rest comes from the node."""
    values = {**call.args, **changed} if target is call.node.target else changed
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for argument in target._schema.arguments:
        if argument.name not in values:
            continue
        value = values[argument.name]
        if argument.kwarg_only:
            if value is not None or argument.name in call.node.kwargs:
                kwargs[argument.name] = value
        else:
            args.append(value)
    return tuple(args), kwargs
