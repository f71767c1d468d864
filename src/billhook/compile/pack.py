"""From operators and their layout to the instructions of a model file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from billhook.compile.chains import CHAIN, slots
from billhook.compile.format import QUAD_OF_ONES, Planes, Writer, float_bits
from billhook.compile.gathers import cover_args, norm_args, product_addresses, row_addresses
from billhook.compile.ir import (
    Activate,
    Affine,
    Binary,
    Convert,
    Flatten,
    Linear,
    Mean,
    Network,
    Op,
    Pad,
    Pool,
    Port,
    Resize,
    Select,
    Softmax,
    Value,
)
from billhook.compile.layout import Geometry, Layout
from billhook.compile.matrices import write_linear, write_product, write_reuse
from billhook.compile.matrices8 import write_quantised_linear, write_quantised_product
from billhook.compile.packable import require_packable
from billhook.compile.planes import Cover, Matmul, Norm, Rearrange
from billhook.compile.products import Depthwise, Phases, Product, Reuse, Room, numbered
from billhook.compile.tiles import Tile, cut
from billhook.errors import CompileError

_FUNCTIONS = ("add", "subtract", "multiply", "divide", "maximum", "minimum")
_POOLS = ("max", "average", "average_inside")
_LARGEST_BYTE = 3


@dataclass(frozen=True)
class Packer:
    """Writes operators as instructions.

    Attributes:
        writer: Takes them.
        layout: Where values lie.
        tiles: How products are cut, by the name of what they make.
    """

    writer: Writer
    layout: Layout
    tiles: Mapping[str, Tile]

    def network(self, network: Network) -> None:
        """Write everything."""
        self.writer.arena = self.layout.arena
        for op, numbers in numbered(network):
            if numbers:
                _WRITERS[type(op)](self, op)
        for output, ports in enumerate((network.inputs, network.outputs)):
            for port in ports:
                self._port(port, bool(output))

    def product(self, op: Product) -> None:
        """Write a convolution."""
        write = write_quantised_product if op.inputs[0].quantised else write_product
        write(self.writer, self.layout, op, cut(op, self.tiles))

    def linear(self, op: Linear) -> None:
        """Write a linear layer."""
        write = write_quantised_linear if op.inputs[0].quantised else write_linear
        write(self.writer, self.layout, op)

    def reuse(self, op: Reuse) -> None:
        """Write a convolution that computes similar pixels once."""
        write_reuse(self.writer, self.layout, op)

    def phases(self, op: Phases) -> None:
        """Write one strided copy for each phase."""
        x = op.inputs[0]
        for i, (row, pixel) in enumerate(op.phases):
            self._copy(x, op.output, op.step, (row, pixel), i * x.planes)

    def pad(self, op: Pad) -> None:
        """Write a shifted copy."""
        top, _, left, _ = op.padding
        self._copy(op.inputs[0], op.output, (1, 1), (-top, -left))

    def flatten(self, op: Flatten) -> None:
        """Write the pixels of all planes one after the other."""
        x, out = op.inputs[0], self.layout.planes[op.output]
        whole = Geometry(x.height, x.width, x.width, 0, 0, x.pixels)
        self.writer.instruction(
            "copy",
            _target(whole, int(out[0])) | self._source(x) | {"step_y": 1, "step_x": 1, "size": 0},
            {"in": self.layout.planes[x]},
        )

    def depthwise(self, op: Depthwise) -> None:
        """Write a depthwise convolution."""
        x = op.inputs[0]
        args = {"kernel": op.weight.shape[-1], "stride": op.stride, "top": op.top, "left": op.left}
        if x in self.layout.chained:
            args |= {"slots": slots(x), "slot": CHAIN * self.layout.geometry[x].stride}
        self.writer.instruction(
            "depthwise",
            self._target(op.output) | self._source(op.inputs[0]) | args,
            {"in": self.layout.planes[op.inputs[0]], "weights": op.weight, "bias": op.bias},
            op.activation,
        )

    def pool(self, op: Pool) -> None:
        """Write pooling."""
        top, bottom, left, right = op.padding
        (kernel_y, kernel_x), (stride_y, stride_x) = op.kernel, op.stride
        grid = op.output.quantised
        self.writer.instruction(
            "pool",
            self._target(op.output)
            | self._source(op.inputs[0])
            | {
                "mode": _POOLS.index(op.mode) if grid is None else _LARGEST_BYTE,
                "kernel_y": kernel_y,
                "kernel_x": kernel_x,
                "stride_y": stride_y,
                "stride_x": stride_x,
                "top": top,
                "left": left,
                "dilation_y": op.dilation[0],
                "dilation_x": op.dilation[1],
                "area": bottom << 16 | right if grid is None else grid.zero,
            },
            {"in": self.layout.planes[op.inputs[0]]},
            op.activation,
        )

    def cover(self, op: Cover) -> None:
        """Write adaptive pooling."""
        args = self._target(op.output) | self._source(op.inputs[0]) | cover_args(op)
        self.writer.instruction("pool", args, {"in": self.layout.planes[op.inputs[0]]}, op.activation)

    def rearrange(self, op: Rearrange) -> None:
        """Write pixels from other places."""
        data, step = row_addresses(op, self.layout)
        self.writer.instruction("gather", self._target(op.output) | {"step": step}, data, op.activation)

    def mean(self, op: Mean) -> None:
        """Write the mean of every plane."""
        target = {"out": int(self.layout.planes[op.output][0]), "out_stride": 1}
        planes = {"in": self.layout.planes[op.inputs[0]]}
        self.writer.instruction("mean", target | self._source(op.inputs[0]), planes, op.activation)

    def affine(self, op: Affine | Activate) -> None:
        """Write scale, shift and activation."""
        data: dict[str, Any] = {"in": self.layout.planes[op.inputs[0]]}
        if isinstance(op, Affine):
            data |= {"scale": op.scale, "shift": op.shift}
        self._flat("affine", op, {}, data)

    def binary(self, op: Binary) -> None:
        """Write a function of two values."""
        a, b = op.inputs
        by_channel = b.is_vector and not a.is_vector
        planes = self.layout.planes[b]
        data = {
            "in": self.layout.planes[a],
            "scale": np.broadcast_to(planes, (a.channels,)) if len(planes) == 1 else planes,
        }
        self._flat("binary", op, {"function": _FUNCTIONS.index(op.function), "by_channel": by_channel}, data)

    def convert(self, op: Convert) -> None:
        """Write the way into 8 bits, or back."""
        x, out = op.inputs[0], op.output
        grid = out.quantised or x.quantised
        if grid is None or (out.quantised and x.quantised):
            raise CompileError(f"{op.kind} {out.name!r} converts nothing; this is a bug of the compiler")
        args = {"scale": float_bits(grid.scale), "zero": grid.zero, "channels": x.channels}
        self._flat("quantise" if out.quantised else "dequantise", op, args, {"in": self.layout.planes[x]})

    def softmax(self, op: Softmax) -> None:
        """Write softmax over channels."""
        group = op.output.channels // op.groups
        self._flat("softmax", op, {"function": group}, {"in": self.layout.planes[op.inputs[0]]})

    def matmul(self, op: Matmul) -> None:
        """Write a product of two values."""
        a, b = (self.layout.planes[v] for v in op.inputs)
        data = product_addresses(op, a, self.layout.geometry[op.inputs[0]].pitch) | {"columns": b}
        self._flat("matmul", op, {"groups": op.groups, "scale": float_bits(op.scale)}, data)

    def norm(self, op: Norm) -> None:
        """Write mean and variance taken away."""
        planes = self.layout.planes[op.inputs[0]]
        self._flat("norm", op, norm_args(op), {"in": planes, "scale": op.scale, "shift": op.shift})

    def resize(self, op: Resize) -> None:
        """Write resizing."""
        mode = 0 if op.mode == "nearest" else 2 if op.align_corners else 1
        vertical, horizontal = map(float_bits, op.scale)
        self.writer.instruction(
            "resize",
            self._target(op.output)
            | self._source(op.inputs[0])
            | {"mode": mode, "scale_y": vertical, "scale_x": horizontal},
            {"in": self.layout.planes[op.inputs[0]]},
            op.activation,
        )

    def _flat(self, kind: str, op: Op, args: dict[str, int], data: dict[str, Any]) -> None:
        form = self.layout.geometry[op.output]
        args |= {
            "out": int(self.layout.planes[op.output][0]),
            "out_stride": form.stride,
            "vectors": form.vectors,
            "before": form.before,
            "size": form.size,
        }
        if not op.output.is_vector:
            data["mask"] = form.mask
        self.writer.instruction(kind, args, data, op.activation)

    def _copy(
        self, x: Value, out: Value, step: tuple[int, int], first: tuple[int, int], plane: int = 0
    ) -> None:
        args = _target(self.layout.geometry[out], int(self.layout.planes[out][plane])) | self._source(x)
        args |= {"step_y": step[0], "step_x": step[1], "from_y": first[0], "from_x": first[1]}
        args["fill"] = QUAD_OF_ONES * out.quantised.zero if out.quantised else 0
        self.writer.instruction("copy", args, {"in": self.layout.planes[x]})

    def _target(self, value: Value) -> dict[str, int]:
        return _target(self.layout.geometry[value], int(self.layout.planes[value][0]))

    def _source(self, value: Value) -> dict[str, int]:
        form = self.layout.geometry[value]
        return {"height": form.height, "width": form.width, "pitch": form.pitch}

    def _port(self, port: Port, output: bool) -> None:
        form = self.layout.geometry[port.value]
        size = 0 if port.value.is_vector else form.size
        planes = Planes(
            self.layout.planes[port.value], form.height, form.width, form.pitch, form.before, size
        )
        self.writer.port(port.name, port.shape, planes, output=output)


def _target(form: Geometry, out: int) -> dict[str, int]:
    return {
        "out": out,
        "out_stride": form.stride,
        "out_height": form.height,
        "out_width": form.width,
        "out_pitch": form.pitch,
        "before": form.before,
        "size": 0 if form.stride == 1 else form.size,
    }


_WRITERS: Mapping[type[Op], Callable[[Packer, Any], None]] = {
    Product: Packer.product,
    Reuse: Packer.reuse,
    Linear: Packer.linear,
    Depthwise: Packer.depthwise,
    Phases: Packer.phases,
    Pad: Packer.pad,
    Flatten: Packer.flatten,
    Pool: Packer.pool,
    Cover: Packer.cover,
    Rearrange: Packer.rearrange,
    Norm: Packer.norm,
    Matmul: Packer.matmul,
    Mean: Packer.mean,
    Affine: Packer.affine,
    Activate: Packer.affine,
    Binary: Packer.binary,
    Convert: Packer.convert,
    Softmax: Packer.softmax,
    Resize: Packer.resize,
}


def pack(network: Network, layout: Layout, tiles: Mapping[str, Tile] | None = None) -> bytes:
    """Return the model file of a network in the engine's form.

    Raises:
        CompileError: if an operator has no instruction.
    """
    require_packable(network, (*_WRITERS, Select, Room))
    writer = Writer()
    Packer(writer, layout, tiles or {}).network(network)
    return writer.bytes()
