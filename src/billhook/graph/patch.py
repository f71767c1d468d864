"""Attributes that mirror shapes: bring a module's own numbers in line with its smaller tensors.

`patch_known` handles the layers of torch.nn, whose attributes are known. `patch_sizes` handles the user's
modules: an integer attribute equal to a size that changed in an operator which this module runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from billhook.errors import ApplyError
from billhook.graph.attention import HeadAttention
from billhook.graph.capture import Program, layer_of
from billhook.graph.constants import Kept, arguments, rewrite, symbolic
from billhook.graph.rules._base import as_int, bind, shape_of

# Names of attributes that hold numbers of channels, heads or groups; others are touched only as a last try.
_LIKELY = re.compile(
    r"head|group|channel|dim|feature|width|inner|hidden|planes|split|chunk|size|pad|embed|filters|n_|num"
)
_UNLIKELY = re.compile(
    r"kernel|stride|window|patch|layer|block|class|input_size|img|image|head_dim|head_size|dilation"
)


@dataclass(frozen=True)
class Change:
    """A size in an operator that became another: which layer runs it, the old and the new number."""

    layer: str
    old: int
    new: int


def patch_known(small: nn.Module, program: Program, kept: Kept) -> None:
    """Update the attributes of torch.nn layers in `small`, in place."""
    modules = dict(small.named_modules())
    for node in program.graph.nodes:
        if node.op != "call_function" or node in kept.nodes:
            continue
        call = bind(node)
        module = modules.get(layer_of(node))
        if isinstance(module, nn.modules.conv._ConvNd) and call.name.startswith("conv"):
            changed = rewrite(call, kept, symbolic)
            if changed is not None:
                module.groups = changed[1]["groups"]
            first, second = module.weight.shape[:2]
            grouped = second * module.groups
            module.in_channels, module.out_channels = (
                (first, grouped) if module.transposed else (grouped, first)
            )
        elif isinstance(module, nn.Linear) and call.name == "linear":
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            mask = (
                kept.dims(call.operands[0])[1]
                if call.operands and len(shape_of(call.operands[0])) > 1
                else None
            )
            if mask is not None and call.name in ("batch_norm", "instance_norm"):
                module.num_features = int(mask.sum())
        elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and call.name in ("layer_norm", "rms_norm"):
            changed = rewrite(call, kept, symbolic)
            if changed is not None:
                module.normalized_shape = tuple(changed[1]["normalized_shape"])
        elif isinstance(module, nn.GroupNorm) and call.name == "group_norm":
            changed = rewrite(call, kept, symbolic)
            if changed is not None:
                mask = kept.dims(call["input"])[1]
                module.num_groups = changed[1]["num_groups"]
                module.num_channels = int(mask.sum()) if mask is not None else module.num_channels
        elif isinstance(module, nn.Embedding) and call.name == "embedding":
            module.num_embeddings, module.embedding_dim = module.weight.shape
        elif isinstance(module, nn.PReLU):
            module.num_parameters = module.weight.shape[0]
        elif isinstance(module, nn.Unflatten) and call.name == "unflatten":
            changed = rewrite(call, kept, symbolic)
            if changed is not None:
                module.unflattened_size = tuple(changed[1]["sizes"])


def replace_attention(small: nn.Module) -> None:
    """Replace every `nn.MultiheadAttention` that lost heads or inputs by a `HeadAttention`, in place."""
    for name, module in list(small.named_modules()):
        if not isinstance(module, nn.MultiheadAttention) or module.in_proj_weight is None:
            continue
        if module.in_proj_weight.shape == (3 * module.embed_dim, module.embed_dim):
            continue
        parent_name, _, leaf = name.rpartition(".")
        if not name:
            raise ApplyError("a bare nn.MultiheadAttention cannot be replaced inside itself")
        setattr(small.get_submodule(parent_name), leaf, HeadAttention(module))


def changes(program: Program, kept: Kept) -> Iterator[Change]:
    """Yield the sizes that changed inside operators, by the layer that runs them."""
    for node in program.graph.nodes:
        if node.op != "call_function" or node in kept.nodes or not hasattr(node.target, "_schema"):
            continue
        call = bind(node)
        changed = rewrite(call, kept, symbolic_hint)
        if changed is None:
            continue
        target, new = changed
        before = _numbers(call.args.values())
        after = _numbers(arguments(call, new, target)[0])
        if len(before) == len(after):
            pairs = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        elif not isinstance(node.meta["val"], (list, tuple)):
            continue  # a slice with steps that became a look-up has no sizes
        else:  # a chunk that became a split: old and new sizes of the parts
            sizes = [shape_of_part(v, call) for v in node.meta["val"]]
            pairs = list(zip(sizes, _numbers([new.get("split_sizes", [])]), strict=False))
        for old, now in pairs:
            if old != now:
                yield Change(layer_of(node), old, now)


def shape_of_part(value: Any, call: Any) -> int:
    """Return the length of one part of a split."""
    return as_int(value.shape[int(call.get("dim") or 0) % len(shape_of(call.operands[0]))])


def symbolic_hint(size: Any, kept: int, of: int) -> int:
    """`Scale` that works on the example's sizes."""
    return as_int(size) * kept // of


def patch_sizes(small: nn.Module, found: list[Change], *, likely_only: bool) -> None:
    """Update integer attributes (alone or in tuples and lists) of the modules that run changed operators."""
    modules = dict(small.named_modules())
    for layer in {c.layer for c in found}:
        module = modules.get(layer)
        if module is None or type(module).__module__.startswith("torch.nn"):
            continue
        # The same number may have become several others (two parts of a split): take them in turn.
        pending: dict[int, list[int]] = {}
        for change in found:
            if change.layer == layer:
                pending.setdefault(change.old, []).append(change.new)
        for name, value in list(vars(module).items()):
            if name.startswith("_") or (likely_only and (_UNLIKELY.search(name) or not _LIKELY.search(name))):
                continue
            if isinstance(value, int) and not isinstance(value, bool) and value in pending:
                setattr(module, name, pending[value][0])
            elif isinstance(value, (tuple, list)) and value and all(type(v) is int for v in value):
                queues = {old: list(new) for old, new in pending.items()}
                replaced = [(q.pop(0) if len(q) > 1 else q[0]) if (q := queues.get(v)) else v for v in value]
                setattr(module, name, type(value)(replaced))


def _numbers(values: Any) -> list[int]:
    result: list[int] = []
    for value in values:
        if isinstance(value, (list, tuple)):
            result += [v for v in value if isinstance(v, int) and not isinstance(v, bool)]
        elif isinstance(value, int) and not isinstance(value, bool):
            result.append(value)
    return result
