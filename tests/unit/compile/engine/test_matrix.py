"""SPMM and SPMV against NumPy, on every instruction set, with threads and batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from billhook.compile.ir import NONE, RELU, Activation
from tests.unit.compile.engine.builder import Floats, Model, Place, numbers

Table = npt.NDArray[np.int32]


def _blocks(weight: Floats, rows: int, columns: Table, *, shared: bool) -> dict[str, Any]:
    """Tables of a matrix [outputs, columns]; blocks keep the columns in which they have a weight, or all."""
    blocks = -(-len(weight) // rows)
    padded = np.zeros((blocks * rows, weight.shape[1]), np.float32)
    padded[: len(weight)] = weight
    parts = padded.reshape(blocks, rows, -1)
    kept = [np.flatnonzero(p.any(0)) if not shared else np.arange(p.shape[1]) for p in parts]
    return {
        "columns": columns if shared else np.concatenate([columns[k] for k in kept]),
        "starts": np.cumsum([0, *map(len, kept)]).astype(np.uint32),
        "weights": np.concatenate([p[:, k].T.reshape(-1) for p, k in zip(parts, kept, strict=True)]),
    }


def _padded(values: npt.NDArray[Any], rows: int, fill: float) -> npt.NDArray[Any]:
    """One number per row of all blocks."""
    room = np.full(-(-len(values) // rows) * rows, fill, values.dtype)
    room[: len(values)] = values
    return room


def _weight(outputs: int, columns: int, sparsity: float) -> Floats:
    weight = numbers(outputs, columns, seed=3)[0]
    weight[np.random.default_rng(4).random(weight.shape) < sparsity] = 0
    return weight


def _convolution(x: Place, kernel: int, dilation: int) -> Table:
    """Addresses of all columns (c, kh, kw) of a window of stride 1 that keeps the size."""
    shift = dilation * (np.arange(kernel) - kernel // 2)
    offsets = shift[:, None] * x.pitch + shift
    return (x.addresses[:, None] + offsets.reshape(-1)).astype(np.int32).reshape(-1)


def _windows(given: Floats, kernel: int, dilation: int) -> Floats:
    """The same numbers of all pixels: [batch, columns, height, width]."""
    margin, span = kernel // 2 * dilation, (kernel - 1) * dilation + 1
    wide = np.pad(given, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    found = np.lib.stride_tricks.sliding_window_view(wide, (span, span), (2, 3))
    taken = found[..., ::dilation, ::dilation].transpose(0, 1, 4, 5, 2, 3)
    return taken.reshape(len(given), -1, *given.shape[2:])


@pytest.mark.parametrize("rows", [1, 4, 8])
@pytest.mark.parametrize(("sparsity", "shared"), [(0.0, True), (0.0, False), (0.9, False)])
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize("added", [False, True])
def test_spmm(rows: int, sparsity: float, shared: bool, kernel: int, dilation: int, added: bool) -> None:
    model = Model()
    pad = kernel // 2 * dilation
    x = model.reads(model.place(5, 11, 13, pad=max(pad, 1)))
    y = model.place(11, 11, 13, pad=max(pad, 1))
    z = model.reads(model.place(11, 11, 13, pad=max(pad, 1)))
    model.writes(y)
    order = np.random.default_rng(0).permutation(11)  # of the rows: the table puts them back
    weight, bias = _weight(11, 5 * kernel * kernel, sparsity), numbers(11, seed=5)[0]
    data = _blocks(weight[order], rows, _convolution(x, kernel, dilation), shared=shared)
    data |= {
        "bias": _padded(bias[order], rows, 0),
        "out": _padded(y.addresses[order], rows, -1),
        "mask": y.mask,
    }
    if added:
        data["added"] = _padded(z.addresses[order], rows, 0)
    args = {"rows": rows, "blocks": -(-11 // rows), "vectors": y.vectors, "shared": int(shared)}
    args |= {"panel": 5, "before": y.before, "size": y.size}
    model.instruction("spmm", args, data, RELU)
    given, other = numbers(5, 11, 13), numbers(11, 11, 13, seed=1)
    expected = np.einsum("ok,bkhw->bohw", weight, _windows(given, kernel, dilation)) + bias[:, None, None]
    expected = np.maximum(expected + (other if added else np.float32(0)), 0)
    model.check([given, other], expected, 1e-5)


@pytest.mark.parametrize(("sparsity", "shared"), [(0.0, True), (0.95, False)])
@pytest.mark.parametrize("size", [(7, 7), (3, 14), (2, 10), (5, 37)])
@pytest.mark.parametrize("activation", [RELU, Activation("silu")])
@pytest.mark.parametrize("added", [False, True])
def test_runs(
    sparsity: float, shared: bool, size: tuple[int, int], activation: Activation, added: bool
) -> None:
    model = Model()
    x, z = model.reads(model.place(5, *size)), model.reads(model.place(70, *size))
    y = model.writes(model.place(70, *size))
    order = np.random.default_rng(0).permutation(70)
    weight, bias = _weight(70, 45, sparsity), numbers(70, seed=5)[0]
    data = _blocks(weight[order], 32, _convolution(x, 3, 1), shared=shared)
    data |= {"bias": _padded(bias[order], 32, 0), "out": _padded(y.addresses[order], 32, -1)}
    starts = np.minimum(np.arange(0, size[1], 7), size[1] - 7)
    data["runs"] = (np.arange(size[0])[:, None] * y.pitch + starts).astype(np.int32).ravel()
    if added:
        data["added"] = _padded(z.addresses[order], 32, 0)
    args = {"blocks": 3, "shared": int(shared), **y.source(), "before": y.before, "size": y.size}
    model.instruction("runs", args, data, activation)
    given, other = numbers(5, *size), numbers(70, *size, seed=1)
    expected = np.einsum("ok,bkhw->bohw", weight, _windows(given, 3, 1)) + bias[:, None, None]
    expected = expected + (other if added else np.float32(0))
    expected = np.maximum(expected, 0) if activation == RELU else expected / (1 + np.exp(-expected))
    model.check([given, other], expected, 1e-5)


@pytest.mark.parametrize(("sparsity", "shared"), [(0.0, True), (0.0, False), (0.8, False)])
@pytest.mark.parametrize(("outputs", "columns"), [(1, 1), (10, 37), (1000, 301)])
@pytest.mark.parametrize("activation", [NONE, Activation("clip", -1, 1)])
@pytest.mark.parametrize("rows", [16, 1])
def test_spmv(
    sparsity: float, shared: bool, outputs: int, columns: int, activation: Activation, rows: int
) -> None:
    model = Model()
    x, y = model.reads(model.vector(columns)), model.writes(model.vector(outputs))
    weight, bias = _weight(outputs, columns, sparsity), numbers(outputs, seed=5)[0]
    data = _blocks(weight, rows, x.addresses, shared=shared)
    data |= {"bias": _padded(bias, rows, 0), "out": _padded(y.addresses, rows, -1)}
    model.instruction(
        "spmv", {"rows": rows, "blocks": -(-outputs // rows), "shared": int(shared)}, data, activation
    )
    given = numbers(columns, 1, 1)
    expected = np.einsum("ok,bkhw->bohw", weight, given) + bias[:, None, None]
    model.check([given], expected if not activation else expected.clip(-1, 1), 2e-5)


@pytest.mark.parametrize("size", [(3, 1, 4), (5, 7, 9), (18, 20, 31)])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("rows", [1, 4, 7])
def test_matmul(size: tuple[int, int, int], groups: int, rows: int) -> None:
    """Weights of row r are pixel r of the planes of its group."""
    count, height, width = size
    model = Model()
    a = model.reads(model.place(groups * count, 1, rows))
    b = model.reads(model.place(groups * count, height, width))
    y = model.writes(model.place(groups * rows, height, width))
    first = a.addresses.reshape(groups, count)[:, :1] + np.arange(rows)
    scale = np.float32(0.5)
    model.instruction(
        "matmul",
        {**y.args(), "vectors": y.vectors, "groups": groups, "scale": int(scale.view(np.uint32))},
        {
            "rows": first.astype(np.int32).ravel(),
            "steps": a.addresses[:count] - a.addresses[0],
            "columns": b.addresses,
            "mask": y.mask,
        },
        RELU,
    )
    left, right = numbers(groups * count, 1, rows, seed=1), numbers(groups * count, height, width)
    weights = left.reshape(len(left), groups, count, rows)
    pixels = right.reshape(len(right), groups, count, -1)
    made = scale * np.einsum("ngkr,ngkp->ngrp", weights, pixels)
    model.check([left, right], np.maximum(made.reshape(len(left), -1, height, width), 0), 1e-5)
