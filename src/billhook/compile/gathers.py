"""What instructions for operators on whole planes hold: arguments, and where single numbers lie."""

from __future__ import annotations

import numpy as np

from billhook.compile.format import float_bits
from billhook.compile.ir import Integers
from billhook.compile.layout import Layout
from billhook.compile.planes import Cover, Matmul, Norm, Rearrange
from billhook.errors import CompileError


def row_addresses(op: Rearrange, layout: Layout) -> tuple[dict[str, Integers], int]:
    """Return the tables of an instruction, and its step.

    Args:
        op: The operator.
        layout: Where its input lies.
    Returns:
        "rows" and "columns" of GATHER; no columns if they are a step apart, else a step of 0.
    Raises:
        CompileError: if the planes lie where no sum of both reaches them (see `whole_planes`).
    """
    x = op.inputs[0]
    addresses, pitch = layout.planes[x].astype(np.int64), layout.geometry[x].pitch
    beyond = op.distances(addresses)
    if beyond is None:
        raise CompileError(
            f"{op.kind} {op.output.name!r} reads scattered planes; this is a bug of the compiler"
        )
    rows = addresses[op.rows[:, 0]] + op.rows[:, 1] * pitch + op.rows[:, 2]
    columns = beyond[op.columns[:, 0]] + op.columns[:, 1] * pitch + op.columns[:, 2]
    first = int(columns.min())  # columns are not negative, rows can be anywhere
    step = int(columns[1] - columns[0]) if columns.size > 1 else 1
    found = {"rows": (rows + first).astype(np.int32)}
    if step > 0 and np.array_equal(columns - first, step * np.arange(columns.size)):
        return found, step
    return found | {"columns": (columns - first).astype(np.int32)}, 0


def product_addresses(op: Matmul, planes: Integers, pitch: int) -> dict[str, Integers]:
    """Return the tables "rows" and "steps" of an instruction.

    Args:
        op: The operator.
        planes: Addresses of the planes of its first input.
        pitch: Floats from row to row of these.
    Raises:
        CompileError: if the planes lie where no sum of both reaches them (see `whole_planes`).
    """
    a, addresses = op.inputs[0], planes.astype(np.int64)
    beyond = op.distances(addresses)
    if beyond is None:
        where = f"{op.kind} {op.output.name!r}"
        raise CompileError(f"{where} reads scattered planes; this is a bug of the compiler")
    pixels = np.arange(a.pixels) // a.width * pitch + np.arange(a.pixels) % a.width
    plane, pixel = op.rows
    steps = pixels if op.by_plane else beyond
    return {"rows": (addresses[plane] + pixels[pixel]).astype(np.int32), "steps": steps.astype(np.int32)}


def cover_args(op: Cover) -> dict[str, int]:
    """Return what POOL needs to know besides its planes."""
    windows = {f"{name}_{axis}": 1 for name in ("kernel", "stride", "dilation") for axis in "yx"}
    return {"mode": 4 if op.mode == "max" else 5, **windows}


def norm_args(op: Norm) -> dict[str, int]:
    """Return what NORM needs to know besides its planes."""
    x = op.inputs[0]
    pixels = 0 if op.by_pixel or x.is_vector else x.pixels
    return {"group": x.channels // op.groups, "pixels": pixels, "epsilon": float_bits(op.epsilon)}
