"""The model file: what engine/format.h says, written from Python."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from billhook.compile.ir import NONE, Activation, Shape
from billhook.errors import InputError

MAGIC, VERSION = b"BILLHOOK", 1
ALIGN = 64  # bytes
VECTOR = 16  # floats
MAX_RANK, REFS_PER, ARGS_PER = 6, 8, 20

ACTIVATIONS: tuple[str, ...] = get_args(Shape)  # their numbers are their places
_TARGET = ("out", "out_stride", "out_height", "out_width", "out_pitch", "before", "size")
_SOURCE = ("height", "width", "pitch")
_SPMM = ("rows", "blocks", "vectors", "shared", "panel", "before", "size")
_RUNS = ("blocks", "shared", "height", "width", "pitch", "before", "size")
_BYTES = ("zero", "low", "high", "unit", "added_scale", "added_zero")
_QUADS = ("columns", "starts", "weights", "bias", "scale", "out")
_FLAT = ("out", "out_stride", "vectors", "before", "size", "function", "by_channel")
_FLAT_REFS = ("in", "scale", "shift", "mask")
KINDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "spmm": (
        _SPMM,
        ("columns", "starts", "weights", "bias", "out", "added", "mask"),
    ),
    "spmv": (("rows", "blocks", "shared"), ("columns", "starts", "weights", "bias", "out")),
    "copy": ((*_TARGET, *_SOURCE, "step_y", "step_x", "from_y", "from_x", "fill"), ("in",)),
    "pool": (
        (
            *_TARGET,
            *_SOURCE,
            "mode",
            "kernel_y",
            "kernel_x",
            "stride_y",
            "stride_x",
            "top",
            "left",
            "dilation_y",
            "dilation_x",
            "area",
        ),
        ("in",),
    ),
    "mean": (("out", "out_stride", *_SOURCE), ("in",)),
    "affine": (_FLAT, _FLAT_REFS),
    "binary": (_FLAT, _FLAT_REFS),
    "resize": ((*_TARGET, *_SOURCE, "mode", "scale_y", "scale_x"), ("in",)),
    "softmax": (_FLAT, _FLAT_REFS),
    "depthwise": (
        (*_TARGET, *_SOURCE, "kernel", "stride", "top", "left", "slots", "slot"),
        ("in", "weights", "bias"),
    ),
    "runs": (
        _RUNS,
        ("columns", "starts", "weights", "bias", "out", "added", "runs"),
    ),
    "spmm8": ((*_SPMM, *_BYTES), (*_QUADS, "added", "mask")),
    "spmv8": (("rows", "blocks", "shared"), _QUADS),
    "quantise": ((*_FLAT[:5], "scale", "zero", "channels"), _FLAT_REFS),
    "dequantise": ((*_FLAT[:5], "scale", "zero", "channels"), _FLAT_REFS),
    "runs8": ((*_RUNS, *_BYTES), (*_QUADS, "added", "runs")),
    "gather": ((*_TARGET, "step"), ("rows", "columns")),
    "norm": ((*_FLAT[:5], "group", "pixels", "epsilon"), _FLAT_REFS),
    "matmul": ((*_FLAT[:5], "groups", "scale"), ("rows", "steps", "columns", "mask")),
    "reuse": (
        ("vectors", "length", "hashes", "before", "size", "room"),
        ("columns", "planes", "offsets", "weights", "bias", "out", "added", "mask"),
    ),
}
"""Kind → names of its arguments, names of its data; in the order of format.h."""

_HEADER = struct.Struct("<8sIIQQIII20x")
_INSTRUCTION = struct.Struct(f"<IIff{ARGS_PER}I{2 * REFS_PER}I")
_PORT = struct.Struct(f"<4II{MAX_RANK}I5I")

QUAD_OF_ONES = 0x01010101


def float_bits(x: float) -> int:
    """Return the 32 bits of a float, as arguments keep them."""
    return int(struct.unpack("<I", struct.pack("<f", x))[0])


Ref = tuple[int, int]
EMPTY: Ref = (0, 0)


@dataclass(frozen=True)
class Planes:
    """Where an input or output lies; see `bh_port_record`.

    Attributes:
        addresses: Of the planes.
        height, width, pitch, before, size: Of each.
    """

    addresses: npt.NDArray[np.int32]
    height: int
    width: int
    pitch: int
    before: int
    size: int


@dataclass
class Writer:
    """Collects instructions and data, and returns the file.

    Attributes:
        arena: Floats of activations.
    """

    arena: int = 0
    _data: list[bytes] = field(default_factory=list)
    _refs: dict[bytes, Ref] = field(default_factory=dict)
    _instructions: list[tuple[Any, ...]] = field(default_factory=list)
    _ports: tuple[list[Any], list[Any]] = field(default_factory=lambda: ([], []))
    _end: int = 0  # of the data, in units of 64 bytes

    def data(self, array: npt.NDArray[Any]) -> Ref:
        """Store an array, once if there is an equal one, and return where it is, from the first data on."""
        array = np.ascontiguousarray(array)
        raw = array.tobytes()
        if not raw:
            return EMPTY
        key = array.dtype.str.encode() + raw if len(raw) < 1 << 16 else b""
        if key and key in self._refs:
            return self._refs[key]
        ref = (self._end, array.size)
        padded = raw + bytes(-len(raw) % ALIGN)
        self._data.append(padded)
        self._end += len(padded) // ALIGN
        if key:
            self._refs[key] = ref
        return ref

    def instruction(
        self,
        kind: str,
        args: Mapping[str, int],
        data: Mapping[str, npt.NDArray[Any]],
        activation: Activation = NONE,
    ) -> None:
        """Append an instruction; arguments and data that are not named are 0 and empty."""
        names, refs = KINDS[kind]
        unknown = [n for n in (*args, *data) if n not in (*names, *refs)]
        assert not unknown, f"{kind} has no {unknown}"
        numbers = [int(args.get(n, 0)) & 0xFFFFFFFF for n in names]
        places = [self.data(data[n]) if n in data else EMPTY for n in refs]
        numbers += [0] * (ARGS_PER - len(numbers))
        places += [EMPTY] * (REFS_PER - len(places))
        self._instructions.append(
            (
                list(KINDS).index(kind),
                ACTIVATIONS.index(activation.shape),
                activation.low,
                activation.high,
                *numbers,
                *(n for place in places for n in place),
            )
        )

    def port(self, name: str, shape: Sequence[int], planes: Planes, *, output: bool) -> None:
        """Append an input or output."""
        if len(shape) > MAX_RANK:
            raise InputError(f"{name!r} has {len(shape)} dimensions; the engine takes up to {MAX_RANK}")
        encoded = np.frombuffer(name.encode() + b"\0", np.uint8)
        self._ports[output].append((self.data(encoded), self.data(planes.addresses), tuple(shape), planes))

    def bytes(self) -> bytes:
        """Return the file."""
        head = _HEADER.size + len(self._instructions) * _INSTRUCTION.size
        head += sum(map(len, self._ports)) * _PORT.size
        first = -(-head // ALIGN)

        def moved(ref: Ref) -> Ref:
            return (ref[0] + first, ref[1]) if ref[1] else EMPTY

        parts = []
        for kind, function, low, high, *rest in self._instructions:
            places = [(rest[i], rest[i + 1]) for i in range(ARGS_PER, len(rest), 2)]
            flat = [n for place in places for n in moved(place)]
            parts.append(_INSTRUCTION.pack(kind, function, low, high, *rest[:ARGS_PER], *flat))
        for name, addresses, shape, planes in (*self._ports[0], *self._ports[1]):
            sizes = [*shape, *[0] * (MAX_RANK - len(shape))]
            geometry = (planes.height, planes.width, planes.pitch, planes.before, planes.size)
            parts.append(_PORT.pack(*moved(name), *moved(addresses), len(shape), *sizes, *geometry))
        body = b"".join(parts)
        body += bytes(first * ALIGN - head)
        body += b"".join(self._data)
        counts = (len(self._instructions), len(self._ports[0]), len(self._ports[1]))
        size = _HEADER.size + len(body)
        return _HEADER.pack(MAGIC, VERSION, zlib.crc32(body), size, self.arena, *counts) + body
