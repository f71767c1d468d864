"""Normalisation: per channel (exact) or across channels (mixing)."""

from __future__ import annotations

from typing import Any

from billhook.graph.labels import Dims
from billhook.graph.rules._base import Call, Flow, Result, first_of, rule, shape_of


def _follow(flow: Flow, call: Call, tensor: Any, dims: Dims) -> None:
    """Tie the axes of an affine parameter or statistic to the channels it scales."""
    if tensor is None:
        return
    for axis, (own, labels) in enumerate(zip(flow.dims(tensor), dims, strict=True)):
        flow.unify(call, labels, own)
        flow.role(tensor, axis, "through")


@rule(
    "batch_norm instance_norm native_batch_norm _native_batch_norm_legit_no_training cudnn_batch_norm "
    "_native_batch_norm_legit _batch_norm_with_update_functional _batch_norm_no_update"
)
def per_channel(flow: Flow, call: Call) -> Result:
    """Batch and instance norm treat each channel (dimension 1) alone."""
    x = call.get("input", "self")
    dims = flow.dims(x)
    for name in ("weight", "bias", "running_mean", "running_var"):
        if name in call.args:
            _follow(flow, call, call[name], [dims[1]])
    if call.get("training", "use_input_stats"):
        for i, labels in enumerate(dims):
            if i != 1:
                flow.mix(call, labels, "statistics are taken over this dimension")
    return first_of(call, dims)


@rule("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def across_trailing(flow: Flow, call: Call) -> Result:
    """Layer and RMS norm take statistics over the trailing dimensions."""
    x = call["input"]
    dims = flow.dims(x)
    count = len(call["normalized_shape"])
    for labels in dims[len(dims) - count :]:
        flow.mix(call, labels, f"{call.name.removeprefix('native_')} mixes channels")
    for name in ("weight", "bias"):
        if name in call.args:
            _follow(flow, call, call[name], dims[len(dims) - count :])
    return first_of(call, dims)


@rule("group_norm", "native_group_norm")
def across_group(flow: Flow, call: Call) -> Result:
    """Group norm: a whole group leaves exactly; a single group is a layer norm over channels."""
    x = call["input"]
    groups = int(call.get("num_groups", "group"))
    dims = flow.dims(x)
    channels = dims[1]
    if channels is not None:
        if groups > 1:
            rows = channels.reshape(groups, -1)
            flow.unify(call, rows[:, :1], rows)
        else:
            flow.mix(call, channels, "group norm with one group mixes channels")
    for labels in dims[2:]:
        flow.mix(call, labels, "group norm takes statistics over this dimension")
    for name in ("weight", "bias"):
        _follow(flow, call, call[name], [channels])
    return first_of(call, dims)


@rule("_weight_norm", "_weight_norm_interface")
def weight_norm(flow: Flow, call: Call) -> Result:
    """g · v / ‖v‖ with the norm over all axes but `dim`."""
    v, g, dim = call["v"], call["g"], int(call["dim"])
    dims = flow.dims(v)
    dim %= len(dims)
    for i, labels in enumerate(dims):
        if i != dim:
            flow.mix(call, labels, "weight norm divides by the norm over this axis")
    flow.unify(call, dims[dim], flow.dims(g)[dim] if shape_of(g)[dim] > 1 else None)
    return [dims, flow.dims(g)] if call.name.endswith("interface") else dims
