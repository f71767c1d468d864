"""Matrices of 8-bit weights as instructions: convolutions on quads, and linear layers that read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from billhook.compile.format import Writer, float_bits
from billhook.compile.ir import NONE, QUAD, Activation, Integers, Linear, Quantised
from billhook.compile.layout import Geometry, Layout
from billhook.compile.matrices import LANES, runs_of
from billhook.compile.products import Product
from billhook.compile.quads import QuadMatrix, in_quad_blocks, linear_matrix, product_matrix
from billhook.compile.tiles import IN_LANES, PANEL, ROWS_OF_QUADS, Tile, runs_fit
from billhook.errors import CompileError


def write_quantised_product(writer: Writer, layout: Layout, op: Product, tile: Tile) -> None:
    """Write a convolution of a quantised value; the result, and what is added, are quantised too.

    Raises:
        CompileError: if they are not.
    """
    x, out = op.inputs[0], op.output
    if any(v.quantised is None for v in (*op.inputs, out)):
        raise CompileError(f"{op.kind} {out.name!r} mixes 8 bits and float32; this is a bug of the compiler")
    assert x.quantised
    assert out.quantised
    assert op.weight_scale is not None
    rows, panel = tile.rows, tile.panel
    if rows not in ROWS_OF_QUADS or (rows == IN_LANES and not runs_fit(out)):
        rows, panel = 8, PANEL
    matrix = product_matrix(op)
    blocks = in_quad_blocks(matrix, rows)
    form, padded = layout.geometry[out], blocks.blocks * rows
    scale = x.quantised.scale * op.weight_scale.astype(np.float64)
    low, high, activation = _bounds(op.activation, out.quantised)
    args = {
        "blocks": blocks.blocks,
        "shared": blocks.shared,
        "before": form.before,
        "size": form.size,
        "zero": out.quantised.zero,
        "low": low,
        "high": high,
        "unit": float_bits(out.quantised.scale),
    }
    data = {
        "columns": _addresses(layout.planes[x], layout.geometry[x], matrix)[blocks.columns],
        "starts": blocks.starts,
        "weights": blocks.weights.view(np.int32),
        "bias": _filled(_whole_bias(matrix, op.bias, scale, x.quantised), padded),
        "scale": _filled((scale / out.quantised.scale).astype(np.float32), padded),
        "out": _filled(layout.planes[out], padded // QUAD, -1),
    }
    if len(op.inputs) > 1:
        added = op.inputs[1].quantised
        assert added
        args |= {"added_scale": float_bits(added.scale / out.quantised.scale), "added_zero": added.zero}
        data["added"] = _filled(layout.planes[op.inputs[1]], padded // QUAD)
    if rows == IN_LANES:
        args |= {"height": form.height, "width": form.width, "pitch": form.pitch}
        writer.instruction("runs8", args, data | {"runs": runs_of(form)}, activation)
    else:
        args |= {"rows": rows, "vectors": form.vectors, "panel": min(panel, form.vectors)}
        writer.instruction("spmm8", args, data | {"mask": form.mask}, activation)


def write_quantised_linear(writer: Writer, layout: Layout, op: Linear) -> None:
    """Write a linear layer that reads 8 bits and makes floats."""
    x = op.inputs[0]
    if x.quantised is None or op.output.quantised is not None:
        raise CompileError(f"{op.kind} {op.output.name!r} must read 8 bits and make float32")
    assert op.weight_scale is not None
    matrix = linear_matrix(op)
    blocks = in_quad_blocks(matrix, LANES)
    padded = blocks.blocks * LANES
    scale = x.quantised.scale * op.weight_scale.astype(np.float64)
    data = {
        "columns": _addresses(layout.planes[x], layout.geometry[x], matrix)[blocks.columns],
        "starts": blocks.starts,
        "weights": blocks.weights.view(np.int32),
        "bias": _filled(_whole_bias(matrix, op.bias, scale, x.quantised), padded),
        "scale": _filled(scale.astype(np.float32), padded),
        "out": _filled(layout.planes[op.output], padded, -1),
    }
    args = {"rows": LANES, "blocks": blocks.blocks, "shared": blocks.shared}
    writer.instruction("spmv8", args, data, op.activation)


def _addresses(planes: Integers, form: Geometry, matrix: QuadMatrix) -> Integers:
    plane, down, right = matrix.places.T
    addresses: Integers = (planes[plane] + down * form.pitch + right).astype(np.int32)
    return addresses


def _whole_bias(
    matrix: QuadMatrix, bias: npt.NDArray[np.float32], scale: npt.NDArray[np.float64], grid: Quantised
) -> Integers:
    """Return the bias as a sum of products has it, with what the zero of the input contributes taken off."""
    sums = matrix.weights.sum(axis=-1, dtype=np.int64).ravel()
    whole = np.rint(bias / scale) - grid.zero * sums
    if np.abs(whole).max(initial=0) >= 2**31:
        raise CompileError("a bias does not fit 32 bits; leave the layer in float32")
    made: Integers = whole.astype(np.int32)
    return made


def _filled(array: npt.NDArray[Any], length: int, fill: int = 0) -> npt.NDArray[Any]:
    return np.concatenate([array, np.full(length - len(array), fill, array.dtype)])


def _bounds(activation: Activation, grid: Quantised) -> tuple[int, int, Activation]:
    """Return the lowest and highest byte of the output, and the activation that these do not do."""
    if activation.shape != "clip":
        return 0, 255, activation
    low, high = (
        int(np.clip(np.rint(bound / grid.scale + grid.zero), 0, 255)) if np.isfinite(bound) else most
        for bound, most in ((activation.low, 0), (activation.high, 255))
    )
    return low, high, NONE
