"""The reference: runs a network with torch's own operators, to compare everything else with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from billhook.compile import ir, planes, products
from billhook.errors import CompileError, InputError

Array = npt.NDArray[Any]


def run(
    network: ir.Network,
    inputs: Sequence[Array],
    dtype: torch.dtype = torch.float64,
    observe: Callable[[ir.Value, Tensor], None] | None = None,
) -> list[Array]:
    """Return the outputs of `network` for a batch.

    Args:
        network: Any network.
        inputs: One array [samples, ...] per input of the network.
        dtype: Of all arithmetic and of the results: torch.float64 or torch.float32.
        observe: Called with every value and its numbers, as soon as they are there.
    Raises:
        InputError: for inputs of other shapes than the network's.
        CompileError: if an operator makes another shape than its output has.
    """
    if len(inputs) != len(network.inputs):
        raise InputError(f"the network has {len(network.inputs)} inputs, not {len(inputs)}")
    values: dict[ir.Value, Tensor] = {}
    for port, array in zip(network.inputs, inputs, strict=True):
        if array.shape[1:] != port.shape:
            raise InputError(f"input {port.name!r} has samples of shape {array.shape[1:]}, not {port.shape}")
        v = port.value
        values[v] = torch.tensor(array, dtype=dtype).reshape(-1, v.channels, v.height, v.width)
        if observe is not None:
            observe(v, values[v])
    left = network.uses
    with torch.no_grad():
        for op in network:
            v = op.output
            values[v] = apply(op, [values[value] for value in op.inputs])
            if observe is not None:
                observe(v, values[v])
            left.subtract(op.inputs)
            for value in {*op.inputs, v}:
                if not left[value]:
                    del values[value]  # big networks would not fit otherwise
    return [values[p.value].reshape(-1, *p.shape).numpy() for p in network.outputs]


def apply(op: ir.Op, inputs: Sequence[Tensor]) -> Tensor:
    """Return what one operator makes of its inputs, [samples, channels, height, width] each.

    Raises:
        CompileError: if that has another shape than the operator's output.
    """
    made = _activated(op.activation, _RUN[type(op)](op, *inputs))
    v = op.output
    if made.shape[1:] != (v.channels, v.height, v.width):
        raise CompileError(
            f"{op.kind} {v.name!r} makes samples of shape {tuple(made.shape[1:])}, but its output "
            f"has {(v.channels, v.height, v.width)}"
        )
    return made if v.quantised is None else _rounded(made, v.quantised)


def columns(taps: ir.Integers, x: Array, out: ir.Value) -> Array:
    """Return what each tap [k, 3] of a product that makes `out` reads at its pixels: [samples, k, pixels]."""
    return _columns(taps, torch.from_numpy(x), out).numpy()


def _activated(activation: ir.Activation, x: Tensor) -> Tensor:
    match activation.shape:
        case "none":
            return x
        case "clip":
            return x.clamp(activation.low, activation.high)
        case "leaky":
            return functional.leaky_relu(x, activation.low)
        case "gelu_tanh":
            return functional.gelu(x, approximate="tanh")
        case name:
            function: Callable[[Tensor], Tensor] = getattr(functional, name)
            return function(x)


def _rounded(x: Tensor, grid: ir.Quantised) -> Tensor:
    return ((x / grid.scale + grid.zero).round().clamp(0, 255) - grid.zero) * grid.scale


def _tensor(array: Array, like: Tensor) -> Tensor:
    return torch.tensor(array, dtype=like.dtype)


def _padded(x: Tensor, padding: ir.Sides, fill: float = 0.0) -> Tensor:
    above, below, left, right = padding
    return functional.pad(x, (left, right, above, below), value=fill)


def _convolution(op: ir.Convolution, x: Tensor, added: Tensor | None = None) -> Tensor:
    weight, bias = _tensor(op.weight, x), _tensor(op.bias, x)
    made = functional.conv2d(
        _padded(x, op.padding), weight, bias, op.stride, dilation=op.dilation, groups=op.groups
    )
    return made if added is None else made + added


def _linear(op: ir.Linear, x: Tensor) -> Tensor:
    made = functional.linear(x.flatten(1), _tensor(op.weight, x), _tensor(op.bias, x))
    return made[:, :, None, None]


def _phases(op: products.Phases, x: Tensor) -> Tensor:
    height, width = op.output.height * op.step[0], op.output.width * op.step[1]
    whole = _padded(x, (0, height - x.shape[2], 0, width - x.shape[3]))
    channels = op.output.channels // len(op.phases)  # more than those of x where they fill quads
    whole = functional.pad(whole, (0, 0, 0, 0, 0, channels - whole.shape[1]))
    return torch.cat([whole[:, :, row :: op.step[0], column :: op.step[1]] for row, column in op.phases], 1)


def _product(op: products.Product, x: Tensor, added: Tensor | None = None) -> Tensor:
    weight, taps = _tensor(op.weight, x), torch.from_numpy(op.taps).long()
    margin = int(taps[..., 1:].abs().max()) if taps.numel() else 0
    height, width = op.output.height, op.output.width
    wide = max(height, x.shape[2]) + 2 * margin, max(width, x.shape[3]) + 2 * margin
    rows = torch.arange(height)[:, None] + margin
    columns = torch.arange(width) + margin
    x = _padded(x, (margin, wide[0] - margin - x.shape[2], margin, wide[1] - margin - x.shape[3]))
    made = []
    for matrix, tap in zip(weight, taps, strict=True):
        plane, down, right = (t[:, None, None] for t in tap.T)
        made.append(torch.einsum("ok,nkhw->nohw", matrix, x[:, plane, rows + down, columns + right]))
    total = torch.cat(made, 1) + _tensor(op.bias, x)[:, None, None]
    return total if added is None else total + added


def _reuse(op: products.Reuse, x: Tensor, room: Tensor, added: Tensor | None = None) -> Tensor:
    columns = _columns(op.taps, x, op.output)
    weight, planes, offsets = (_tensor(a, x) for a in (op.weight, op.planes, op.offsets))
    total = _tensor(op.bias, x)[:, None].expand(len(x), -1, columns.shape[2]).clone()
    for slab, start in enumerate(range(0, columns.shape[1], op.length)):
        part = slice(start, start + op.length)
        above = torch.einsum("nkp,kh->nhp", columns[:, part], planes[part]) - offsets[slab][:, None] >= 0
        keys = (above.long() << torch.arange(above.shape[1])[:, None]).sum(1)
        for n, own in enumerate(keys):
            alike = own[:, None] == own  # the first pixel that has the same key stands for a pixel
            total[n] += weight[:, part] @ columns[n, part][:, alike.int().argmax(1)]
    total = total.reshape(len(x), -1, op.output.height, op.output.width)
    return total if added is None else total + added


def _columns(taps: ir.Integers, x: Tensor, out: ir.Value) -> Tensor:
    """Return what each tap reads at every pixel of the output: [samples, taps, pixels]."""
    ones: ir.Floats = np.eye(len(taps), dtype=np.float32)
    name = ir.Value(out.name, len(taps), out.height, out.width)
    unit = products.Product((), name, ones[None], taps[None], ones[0] * 0)
    return _product(unit, x).flatten(2)


def _depthwise(op: products.Depthwise, x: Tensor) -> Tensor:
    weight = _tensor(op.weight, x)[:, None]
    size = weight.shape[-1]
    bottom, right = (
        max(0, (made - 1) * op.stride + size - before - given)
        for made, before, given in (
            (op.output.height, op.top, x.shape[2]),
            (op.output.width, op.left, x.shape[3]),
        )
    )
    wide = _padded(x, (op.top, bottom, op.left, right))
    made = functional.conv2d(wide, weight, _tensor(op.bias, x), op.stride, groups=len(weight))
    return made[:, :, : op.output.height, : op.output.width]


def _pool(op: ir.Pool, x: Tensor) -> Tensor:
    if op.mode == "max":
        least = float("-inf")
        return functional.max_pool2d(_padded(x, op.padding, least), op.kernel, op.stride, 0, op.dilation)
    if op.dilation != (1, 1):
        raise CompileError(f"{op.kind} {op.output.name!r} averages dilated windows, which is not defined")
    made = functional.avg_pool2d(_padded(x, op.padding), op.kernel, op.stride)
    if op.mode == "average":
        return made
    inside = _padded(torch.ones_like(x[:1, :1]), op.padding)
    return made / functional.avg_pool2d(inside, op.kernel, op.stride)


def _rearrange(op: planes.Rearrange, x: Tensor) -> Tensor:
    rows, columns = (torch.from_numpy(t).long() for t in (op.rows, op.columns))
    plane, row, pixel = (
        (rows[:, None] + columns).reshape(op.output.channels, op.output.height, -1, 3).unbind(-1)
    )
    return x[:, plane, row, pixel]


def _cover(op: planes.Cover, x: Tensor) -> Tensor:
    size = (op.output.height, op.output.width)
    largest = op.mode == "max"
    return functional.adaptive_max_pool2d(x, size) if largest else functional.adaptive_avg_pool2d(x, size)


def _norm(op: planes.Norm, x: Tensor) -> Tensor:
    grouped = x.reshape(len(x), op.groups, -1, *x.shape[2:])
    over = (2,) if op.by_pixel else (2, 3, 4)
    centred = grouped - grouped.mean(over, keepdim=True)
    variance = centred.square().mean(over, keepdim=True)
    made = (centred / (variance + op.epsilon).sqrt()).reshape(x.shape)
    return made * _tensor(op.scale, x)[:, None, None] + _tensor(op.shift, x)[:, None, None]


def _matmul(op: planes.Matmul, a: Tensor, b: Tensor) -> Tensor:
    a, b = (t.reshape(len(t), op.groups, -1, t.shape[2] * t.shape[3]) for t in (a, b))
    made = (a if op.by_plane else a.transpose(2, 3)) @ b
    return op.scale * made.reshape(len(a), -1, op.output.height, op.output.width)


def _affine(op: ir.Affine, x: Tensor) -> Tensor:
    return x * _tensor(op.scale, x)[:, None, None] + _tensor(op.shift, x)[:, None, None]


def _binary(op: ir.Binary, a: Tensor, b: Tensor) -> Tensor:
    function: Callable[[Tensor, Tensor], Tensor] = getattr(torch, op.function)
    return function(a, b)


def _resize(op: ir.Resize, x: Tensor) -> Tensor:
    for dim, (made, scale) in enumerate(zip((op.output.height, op.output.width), op.scale, strict=True), 2):
        x = _resized(x, dim, made, scale, op)
    return x


def _resized(x: Tensor, dim: int, made: int, scale: float, op: ir.Resize) -> Tensor:
    """Return `x` with `made` indices along a dimension."""
    last = x.shape[dim] - 1
    if op.mode == "nearest":
        # torch multiplies in float32, and ⌊i · scale⌋ depends on it.
        places = torch.arange(made, dtype=torch.float32) * torch.tensor(scale, dtype=torch.float32)
        return x.index_select(dim, places.floor().long().clamp(max=last))
    places = torch.arange(made, dtype=torch.float64)
    places = places * scale if op.align_corners else ((places + 0.5) * scale - 0.5).clamp(min=0)
    below = places.floor().long().clamp(max=last)
    mix = (places - below).to(x.dtype).reshape([-1 if d == dim else 1 for d in range(4)])
    above = (below + 1).clamp(max=last)
    return x.index_select(dim, below) * (1 - mix) + x.index_select(dim, above) * mix


_RUN: dict[type[ir.Op], Callable[..., Tensor]] = {
    ir.Convolution: _convolution,
    ir.Linear: _linear,
    products.Phases: _phases,
    products.Product: _product,
    products.Room: lambda op: torch.zeros(1, op.output.channels, 1, 1),
    products.Reuse: _reuse,
    products.Depthwise: _depthwise,
    ir.Pool: _pool,
    planes.Rearrange: _rearrange,
    planes.Cover: _cover,
    planes.Norm: _norm,
    ir.Mean: lambda op, x: x.mean((2, 3), keepdim=True),
    ir.Affine: _affine,
    ir.Binary: _binary,
    ir.Activate: lambda op, x: x,
    ir.Convert: lambda op, x: x,
    ir.Select: lambda op, *x: torch.cat(x, 1)[:, torch.from_numpy(op.planes).long()],
    ir.Pad: lambda op, x: _padded(x, op.padding),
    ir.Resize: _resize,
    ir.Softmax: lambda op, x: x.reshape(len(x), op.groups, -1, *x.shape[2:]).softmax(2).reshape(x.shape),
    planes.Matmul: _matmul,
    ir.Flatten: lambda op, x: x.flatten(1)[:, :, None, None],
}
