"""Where single numbers that operators read lie in the arena."""

from __future__ import annotations

import numpy as np

from billhook.compile.ir import Integers
from billhook.compile.planes import Matmul, Rearrange
from billhook.errors import CompileError


def row_addresses(op: Rearrange, planes: Integers, pitch: int) -> tuple[dict[str, Integers], int]:
    """Return the tables of an instruction, and its step.

    Args:
        op: The operator.
        planes: Addresses of the planes that it reads.
        pitch: Floats from row to row of these.
    Returns:
        "rows" and "columns" of GATHER; no columns if they are a step apart, else a step of 0.
    Raises:
        CompileError: if the planes lie where no sum of both reaches them (see `whole_planes`).
    """
    addresses = planes.astype(np.int64)
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
