"""Pooling, resizing, padding, shifting and pixel shuffles."""

from __future__ import annotations

import numpy as np

from billhook.graph.labels import Dims
from billhook.graph.rules._base import Call, Flow, Result, each_of, rule, shape_of

_POOLS = [
    f"{kind}_pool{n}d" for kind in ("avg", "max", "adaptive_avg", "adaptive_max", "lp") for n in (1, 2, 3)
]
_SIZES = [
    f"upsample_{m}"
    for m in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "bicubic2d", "trilinear3d")
]
_EXACT = [f"_upsample_nearest_exact{n}d" for n in (1, 2, 3)] + [
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
]


@rule(
    *_POOLS,
    *_SIZES,
    *_EXACT,
    "max_pool2d_with_indices max_pool3d_with_indices max_pool1d_with_indices _adaptive_avg_pool2d "
    "_adaptive_avg_pool3d mkldnn_max_pool2d fractional_max_pool2d unfold_copy",
)
def per_plane(flow: Flow, call: Call) -> Result:
    """Works inside the trailing 1, 2 or 3 dimensions; channels pass."""
    rank = next(int(n) for n in "123" if f"{n}d" in call.name)
    dims = flow.dims(call.operands[0])
    for labels in dims[len(dims) - rank :]:
        flow.freeze(call, labels, f"{call.name} runs over this dimension")
    result: Dims = [*dims[: len(dims) - rank], *[None] * rank]
    return each_of(call, result)


@rule(
    "pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d "
    "replication_pad2d replication_pad3d"
)
def padding(flow: Flow, call: Call) -> Dims:
    """Constant channels put before or after others get labels of their own: they can leave, too."""
    dims = flow.dims(call.operands[0])
    amounts = [int(a) for a in call.get("pad", "padding")]
    constant = call.name == "constant_pad_nd" or (
        call.name == "pad" and call.get("mode") in (None, "constant")
    )
    for position in range(len(amounts) // 2):
        before, after = amounts[2 * position : 2 * position + 2]
        at = len(dims) - 1 - position
        labels = dims[at]
        if labels is None or (before == 0 and after == 0):
            continue
        if not constant:
            flow.freeze(call, labels, "padding copies channels")
            dims[at] = None
            continue
        labels = labels[max(-before, 0) : len(labels) - max(-after, 0)]
        dims[at] = np.concatenate((flow.store.fresh(max(before, 0)), labels, flow.store.fresh(max(after, 0))))
    return dims


@rule("roll", "flip", "fliplr", "flipud", "rot90")
def shift(flow: Flow, call: Call) -> Dims:
    """Dimensions that are shifted must keep their size; the others pass."""
    dims = flow.dims(call["self"])
    touched = [int(d) % len(dims) for d in (call.get("dims") or range(len(dims)))]
    for i in touched:
        flow.freeze(call, dims[i], f"{call.name} moves indices along this dimension")
    if call.name == "rot90":
        return [None if i in touched else d for i, d in enumerate(dims)]
    return dims


@rule("pixel_shuffle")
def pixel_shuffle(flow: Flow, call: Call) -> Dims:
    """[C·r², H, W] → [C, H·r, W·r]: the r² channels of one output channel leave together."""
    dims, square = flow.dims(call["self"]), int(call["upscale_factor"]) ** 2
    labels = dims[-3]
    if labels is not None:
        rows = labels.reshape(-1, square)
        flow.unify(call, rows[:, :1], rows)
        labels = rows[:, 0]
    return [*dims[:-3], labels, None, None]


@rule("pixel_unshuffle")
def pixel_unshuffle(flow: Flow, call: Call) -> Dims:
    """[C, H·r, W·r] → [C·r², H, W]."""
    dims, square = flow.dims(call["self"]), int(call["downscale_factor"]) ** 2
    labels = dims[-3]
    return [*dims[:-3], None if labels is None else labels.repeat(square), None, None]


@rule("channel_shuffle")
def channel_shuffle(flow: Flow, call: Call) -> Dims:
    """[G, C/G] → [C/G, G]: the same position leaves in every group."""
    dims, groups = flow.dims(call["self"]), int(call["groups"])
    labels = dims[1]
    if labels is not None:
        rows = labels.reshape(groups, -1)
        flow.unify(call, rows[:1], rows)
        dims[1] = rows[0].repeat(groups)
    return dims


@rule("im2col", "unfold_windows")
def im2col(flow: Flow, call: Call) -> Dims:
    """[N, C, H, W] → [N, C·k, L]: every channel becomes k rows."""
    dims = flow.dims(call["self"])
    shape = shape_of(call["self"])
    labels = dims[-3]
    times = call.shape[-2] // shape[-3]
    return [*dims[:-3], None if labels is None else labels.repeat(times), None]


@rule("col2im")
def col2im(flow: Flow, call: Call) -> Dims:
    """[N, C·k, L] → [N, C, H, W]: the k rows of one channel leave together."""
    dims = flow.dims(call["self"])
    labels = dims[-2]
    flow.freeze(call, dims[-1], "folds this dimension")
    if labels is not None:
        rows = labels.reshape(call.shape[-3], -1)
        flow.unify(call, rows[:, :1], rows)
        labels = rows[:, 0]
    return [*dims[:-2], labels, None, None]


@rule("grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "affine_grid_generator")
def grid(flow: Flow, call: Call) -> Dims:
    """Sampling positions carry no channels; the sampled planes do."""
    dims = flow.dims(call.operands[0])
    for operand in call.operands[1:]:
        for labels in flow.dims(operand):
            flow.freeze(call, labels, "holds coordinates")
    return (
        [*dims[:2], *[None] * (len(call.shape) - 2)]
        if call.name != "affine_grid_generator"
        else [None] * len(call.shape)
    )
