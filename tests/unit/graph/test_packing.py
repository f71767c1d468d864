"""Whole numbers in few bytes; what comes from a file is not believed."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billhook.graph.packing import from_text, pack, packed_bytes, small_type, to_text, unpack


@given(st.integers(2, 70_000), st.lists(st.integers(0, 2**32), max_size=60))
def test_numbers_come_back(levels: int, numbers: list[int]) -> None:
    values = np.array([n % levels for n in numbers], dtype=np.int64)
    again = unpack(pack(values, levels), values.shape, levels)
    assert np.array_equal(again, values)
    assert again.dtype == (bool if levels == 2 else small_type(levels))
    assert np.array_equal(from_text(to_text(values, levels), values.shape, levels), values)


@given(
    st.lists(st.one_of(st.integers(0, 5), st.sampled_from([254, 255, 256, 509, 510, 511, 5000])), max_size=12)
)
def test_rare_flags_come_back(gaps: list[int]) -> None:
    flags = np.concatenate([*(np.append(np.zeros(g, dtype=bool), True) for g in gaps), np.zeros(3000, bool)])
    packed = pack(flags, 2)
    assert np.array_equal(unpack(packed, flags.shape, 2), flags)
    assert len(packed) <= 1 + -(-len(flags) // 8)


def test_shapes_come_back() -> None:
    values = np.arange(24).reshape(2, 3, 4) % 5
    assert np.array_equal(unpack(pack(values, 5), (2, 3, 4), 5), values)


def test_rare_flags_take_a_byte_each() -> None:
    flags = np.zeros(100_000, dtype=bool)
    flags[::200] = True
    assert packed_bytes(flags, 2) == 1 + 500
    assert packed_bytes(~flags, 2) == 1 + 12_500


@pytest.mark.parametrize(("levels", "bits"), [(2, 1), (3, 2), (4, 2), (9, 4), (256, 8), (257, 9)])
def test_numbers_take_as_few_bits_as_they_need(levels: int, bits: int) -> None:
    values = np.random.default_rng(0).integers(0, levels, 800)
    assert packed_bytes(values, levels) == 1 + 100 * bits


def as_text(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


HOSTILE: dict[str, Any] = {
    "no text": 3,
    "none": None,
    "a list": [0, 1],
    "not base64": "%%%",
    "not ASCII": "é",
    "not compressed": base64.b64encode(b"hello").decode(),
    "empty": "",
    "no coding": as_text(b""),
    "an unknown coding": as_text(b"\x07\x00\x00"),
    "too short": as_text(b"\x00\x00"),
    "too long": as_text(b"\x00" * 5),
    "a bomb": as_text(b"\x00" * 50_000_000),
    "cut off": to_text(np.arange(16) % 2, 2)[:8],
    "a gap beyond the end": as_text(b"\x01\x10"),
    "a long gap beyond the end": as_text(b"\x01\xff\x10"),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_not_such_an_array_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match=r"array|bytes|place|ASCII"):
        from_text(text, (16,), 2)


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="the number 3 of at most 2"):
        from_text(to_text(np.full(16, 3), 4), (16,), 3)
