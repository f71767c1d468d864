"""Matrices as instructions: convolutions in blocks of rows or with rows in lanes, and linear layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from billhook.compile.blocks import Blocks, in_blocks
from billhook.compile.format import Writer
from billhook.compile.ir import Floats, Integers, Linear
from billhook.compile.layout import Geometry, Layout
from billhook.compile.products import Product, Reuse
from billhook.compile.tiles import IN_LANES, RUN, Tile

LANES = 16  # rows of a block of a linear layer
# Weights that blocks of so many rows may have for one that is not zero; with more, rows stand alone, which
# takes a sixth of the bytes and no longer (4096 × 1000, 95 % zeros, AVX-512, in the cache: 105 µs for 103).
_MOST_FILLED = 11


def write_product(writer: Writer, layout: Layout, op: Product, tile: Tile) -> None:
    """Write a convolution."""
    x, out = op.inputs[0], op.output
    form = layout.geometry[out]
    blocks = in_blocks(op.weight, tile.rows, in_order=out in layout.chained)
    plane, down, right = op.taps.reshape(-1, 3).T
    addresses = layout.planes[x][plane] + down * layout.geometry[x].pitch + right
    data = _matrix(blocks, addresses, layout.planes[out], op.bias)
    if len(op.inputs) > 1:
        data["added"] = _in_order(blocks, layout.planes[op.inputs[1]], 0)
    args = {"blocks": blocks.blocks, "shared": blocks.shared, "before": form.before, "size": form.size}
    if tile.rows == IN_LANES:
        args |= {"height": form.height, "width": form.width, "pitch": form.pitch}
        writer.instruction("runs", args, data | {"runs": runs_of(form)}, op.activation)
    else:
        args |= {"rows": blocks.rows, "vectors": form.vectors, "panel": min(tile.panel, form.vectors)}
        writer.instruction("spmm", args, data | {"mask": form.mask}, op.activation)


def write_linear(writer: Writer, layout: Layout, op: Linear) -> None:
    """Write a linear layer."""
    x = op.inputs[0]
    pixels = (np.arange(x.height)[:, None] * layout.geometry[x].pitch + np.arange(x.width)).ravel()
    addresses = (layout.planes[x][:, None] + pixels).ravel()
    outputs, columns = op.weight.shape
    grid = op.weight.reshape(op.groups, outputs // op.groups, op.groups, columns // op.groups)
    # Rows of different groups share no block: a zero times what another group reads may be NaN.
    blocks = in_blocks((grid[g, :, g] for g in range(op.groups)), LANES)
    if blocks.weights.size > _MOST_FILLED * np.count_nonzero(
        blocks.weights
    ):  # depthwise, or a few single weights
        blocks = in_blocks((grid[g, :, g] for g in range(op.groups)), 1)
    writer.instruction(
        "spmv",
        {"rows": blocks.rows, "blocks": blocks.blocks, "shared": blocks.shared},
        _matrix(blocks, addresses, layout.planes[op.output], op.bias),
        op.activation,
    )


def write_reuse(writer: Writer, layout: Layout, op: Reuse) -> None:
    """Write a convolution that computes similar pixels once."""
    x, room, *added = op.inputs
    form = layout.geometry[op.output]
    plane, down, right = op.taps.T
    width, hashes = -len(op.bias) % LANES, -op.planes.shape[1] % 4  # that are missing
    data = {
        "columns": (layout.planes[x][plane] + down * layout.geometry[x].pitch + right).astype(np.int32),
        "planes": np.pad(op.planes, ((0, 0), (0, hashes))),
        "offsets": np.pad(op.offsets, ((0, 0), (0, hashes))),
        "weights": np.pad(op.weight.T, ((0, 0), (0, width))),
        "bias": np.pad(op.bias, (0, width)),
        "out": layout.planes[op.output],
        "mask": form.mask,
    }
    if added:
        data["added"] = layout.planes[added[0]]
    args = {"vectors": form.vectors, "length": op.length, "hashes": op.planes.shape[1], "before": form.before}
    args |= {"size": form.size, "room": int(layout.planes[room][0])}
    writer.instruction("reuse", args, data, op.activation)


def _matrix(
    blocks: Blocks, addresses: Integers, out: Integers, bias: Floats
) -> dict[str, np.ndarray[Any, Any]]:
    padded = np.append(bias.astype(np.float32), np.float32(0))  # order -1 takes the last
    return {
        "columns": addresses[blocks.columns].astype(np.int32),
        "starts": blocks.starts,
        "weights": blocks.weights,
        "bias": padded[blocks.order],
        "out": _in_order(blocks, out, -1),
    }


def _in_order(blocks: Blocks, planes: Integers, missing: int) -> Integers:
    return np.where(blocks.order < 0, missing, planes[blocks.order]).astype(np.int32)


def runs_of(form: Geometry) -> Integers:
    """Return the first pixels of runs that cover all rows; the last one of a row may overlap."""
    places = np.minimum(np.arange(0, form.width, RUN), form.width - RUN)
    return (np.arange(form.height)[:, None] * form.pitch + places).ravel().astype(np.int32)
