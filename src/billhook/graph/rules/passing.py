"""Operators that change neither shape nor meaning of channels, and those that make constants."""

from __future__ import annotations

import torch

from billhook.graph.labels import Dims
from billhook.graph.rules._base import Call, Flow, Result, each_of, is_tensor, no_channels, rule, shape_of


@rule(
    "alias clone contiguous detach dropout feature_dropout alpha_dropout feature_alpha_dropout "
    "lift_fresh lift_fresh_copy to _to_copy type_as native_dropout bernoulli positive fill zero "
    "zeros_like ones_like empty_like full_like rand_like randn_like requires_grad "
    "prims::convert_element_type convert_element_type float half resolve_conj view_as_real_copy"
)
def same(flow: Flow, call: Call) -> Result:
    """The result has the labels of the first operand."""
    return each_of(call, flow.dims(call.operands[0]) if call.operands else no_channels(call.node))


@rule("zeros ones full empty new_zeros new_ones new_full new_empty scalar_tensor")
def constant(flow: Flow, call: Call) -> Dims:
    """A constant that is the same everywhere can lose any index: fresh labels."""
    return [flow.store.fresh(size) if size > 1 else None for size in call.shape]


@rule(
    "arange linspace eye rand randn randint tril_indices triu_indices one_hot sym_size sym_numel "
    "sym_stride sym_storage_offset item _local_scalar_dense _assert_tensor_metadata _assert_scalar "
    "_assert_async sym_constrain_range_for_size sym_constrain_range"
)
def without_channels(flow: Flow, call: Call) -> Dims:
    """The result carries no channels; operands give only their sizes."""
    for operand in call.operands:
        for size, labels in zip(shape_of(operand), flow.dims(operand), strict=True):
            if labels is not None and size > 1 and is_tensor(call.node):
                flow.freeze(call, labels, f"{call.name} reads values")
    return [None] * len(call.shape) if isinstance(call.node.meta.get("val"), torch.Tensor) else []
