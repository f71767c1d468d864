"""Arrays of small whole numbers in few bytes: flags as bits or gaps, others in as few bits as they need."""

from __future__ import annotations

import base64
import binascii
import zlib
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

_BITS, _GAPS = 0, 1  # the first byte says how the rest is written
_LONG = 255  # a gap of 255 or more: add 255 and go on


def pack(values: Array, levels: int) -> Bytes:
    """Return whole numbers 0 … levels - 1 as bytes: bits, or, for rare flags, the gaps between them."""
    flat = np.asarray(values).reshape(-1)
    bits = _pack_bits(flat, levels)
    if levels == 2:
        gaps = _pack_gaps(flat.astype(bool), at_most=len(bits))
        if gaps is not None:
            return np.concatenate(([np.uint8(_GAPS)], gaps))
    return np.concatenate(([np.uint8(_BITS)], bits))


def unpack(data: Bytes, shape: tuple[int, ...], levels: int) -> Array:
    """Return what `pack` wrote; raises `ValueError` if the bytes are not that."""
    count = prod(shape)
    data = np.asarray(data, dtype=np.uint8)
    if not len(data) or data[0] not in (_BITS, _GAPS):
        raise ValueError("an array of unknown coding")
    code, body = int(data[0]), data[1:]
    if code == _GAPS:
        if levels != 2:
            raise ValueError("gaps are for flags only")
        return _unpack_gaps(body, count).reshape(shape)
    width = _width(levels)
    if len(body) != -(-count * width // 8):
        raise ValueError(f"{len(body)} bytes for {count} numbers of {width} bits")
    bits = np.unpackbits(body, count=count * width)
    if levels == 2:
        return bits.view(np.bool_).reshape(shape)
    numbers = np.zeros(count, dtype=small_type(2**width))
    for bit in bits.reshape(count, width).T:
        numbers <<= 1
        numbers |= bit
    if count and numbers.max() >= levels:
        raise ValueError(f"the number {int(numbers.max())} of at most {levels - 1}")
    return numbers.reshape(shape)


def packed_bytes(values: Array, levels: int) -> int:
    """Return how many bytes `pack` needs."""
    return len(pack(values, levels))


def to_text(values: Array, levels: int) -> str:
    """Return an array as text for JSON."""
    return base64.b64encode(zlib.compress(pack(values, levels).tobytes(), 9)).decode("ascii")


def from_text(text: Any, shape: tuple[int, ...], levels: int) -> Array:
    """Return the array that `to_text` wrote; raises `ValueError`. Unpacks no more than the shape can need."""
    if not isinstance(text, str):
        raise ValueError("an array that is not text")
    most = 2 + -(-prod(shape) * _width(levels) // 8)
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text, validate=True), most)
    except (binascii.Error, zlib.error) as e:
        raise ValueError(f"an array that cannot be unpacked ({e})") from None
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError("an array that is too long or cut off")
    return unpack(np.frombuffer(data, dtype=np.uint8), shape, levels)


def small_type(levels: int) -> type[np.integer[Any]]:
    """Return the smallest unsigned type that holds 0 … levels - 1."""
    return np.uint8 if levels <= 2**8 else np.uint16 if levels <= 2**16 else np.uint32


def _width(levels: int) -> int:
    return max(1, (levels - 1).bit_length())


def _pack_bits(values: Array, levels: int) -> Bytes:
    if levels == 2:
        return np.packbits(values.astype(bool))
    width = _width(levels)
    shifts = np.arange(width - 1, -1, -1)
    return np.packbits((values[:, None].astype(np.int64) >> shifts & 1).astype(np.uint8))


def _pack_gaps(flags: npt.NDArray[np.bool_], at_most: int) -> Bytes | None:
    """Return the number of zeros before every one, None if that takes `at_most` bytes or more."""
    places = np.flatnonzero(flags)
    if len(places) >= at_most:
        return None
    gaps = np.diff(places, prepend=-1) - 1
    long = gaps // _LONG
    if len(places) + int(long.sum()) >= at_most:
        return None
    result = np.full(len(places) + int(long.sum()), _LONG, dtype=np.uint8)
    result[np.cumsum(long + 1) - 1] = gaps % _LONG
    return result


def _unpack_gaps(data: Bytes, count: int) -> npt.NDArray[np.bool_]:
    steps = data.astype(np.int64) + (data != _LONG)  # a place ends with a number below 255
    places = np.cumsum(steps)[data != _LONG] - 1
    flags = np.zeros(count, dtype=bool)
    if len(places) and places[-1] >= count:
        raise ValueError(f"a place {int(places[-1])} of {count}")
    flags[places] = True
    return flags
