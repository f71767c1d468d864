"""Files that are no models, or damaged, or lie: always an error in words, never a crash.

Much more of this is done by engine/fuzz/loader.c.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from billhook.compile.format import Planes
from billhook.compile.session import EngineSession
from billhook.errors import StorageError
from tests.unit.compile.engine.builder import Model, Place, numbers

HEADER, INSTRUCTION, ARGUMENTS, REFERENCES = 64, 160, 16, 96
Build = Callable[[Model, Place, Place], None]


def _repaired(raw: bytes | bytearray) -> bytes:
    """The same file with its size and checksum put right."""
    changed = bytearray(raw)
    struct.pack_into("<IQ", changed, 12, zlib.crc32(changed[HEADER:]), len(changed))
    return bytes(changed)


def _affine(m: Model, x: Place, y: Place) -> None:
    data = {"in": x.addresses, "mask": y.mask, "scale": np.ones(4, np.float32)}
    m.instruction("affine", {**y.args(), "vectors": y.vectors}, data)


def _binary(m: Model, x: Place, y: Place) -> None:
    data = {"in": x.addresses, "scale": x.addresses, "mask": y.mask}
    m.instruction("binary", {**y.args(), "vectors": y.vectors}, data)


def _copy(m: Model, x: Place, y: Place) -> None:
    m.instruction("copy", {**y.target(), **x.source(), "step_y": 1, "step_x": 1}, {"in": x.addresses})


def _pool(m: Model, x: Place, y: Place) -> None:
    windows = {f"{name}_{axis}": 1 for name in ("kernel", "stride", "dilation") for axis in "yx"}
    m.instruction("pool", {**y.target(), **x.source(), **windows}, {"in": x.addresses})


def _resize(m: Model, x: Place, y: Place) -> None:
    one = int(np.float32(1).view(np.uint32))
    args = {"mode": 1, "scale_y": one, "scale_x": one}
    m.instruction("resize", {**y.target(), **x.source(), **args}, {"in": x.addresses})


def _mean(m: Model, x: Place, y: Place) -> None:
    m.instruction("mean", {"out": y.first, "out_stride": y.stride, **x.source()}, {"in": x.addresses})


def _spmm(m: Model, x: Place, y: Place) -> None:
    args = {"rows": 4, "blocks": 1, "vectors": y.vectors, "panel": 2, "before": y.before, "size": y.size}
    data = {"columns": x.addresses, "starts": np.array([0, 4], np.uint32), "out": y.addresses, "mask": y.mask}
    data |= {"weights": np.ones(16, np.float32), "bias": np.ones(4, np.float32), "added": x.addresses}
    m.instruction("spmm", args, data)


def _spmv(m: Model, x: Place, y: Place) -> None:
    out = np.concatenate([y.addresses, np.full(12, -1, np.int32)])
    data = {"columns": x.addresses, "starts": np.array([0, 4], np.uint32), "out": out}
    data |= {"weights": np.ones(64, np.float32), "bias": np.ones(16, np.float32)}
    m.instruction("spmv", {"rows": 16, "blocks": 1}, data)


def _depthwise(m: Model, x: Place, y: Place) -> None:
    args = {**y.target(), **x.source(), "kernel": 3, "stride": 1, "top": 1, "left": 1}
    data = {"in": x.addresses, "weights": np.ones(36, np.float32), "bias": np.ones(4, np.float32)}
    m.instruction("depthwise", args, data)


def _chain(m: Model, x: Place, y: Place) -> None:
    ring = m.place(8 * 2, 5, 6)
    _spmm(m, x, replace(ring, channels=4))
    args = {**y.target(), **ring.source(), "kernel": 3, "stride": 1, "top": 1, "left": 1}
    args |= {"slots": 2, "slot": 8 * ring.stride}
    data = {"in": ring.addresses[:4], "weights": np.ones(36, np.float32), "bias": np.ones(4, np.float32)}
    m.instruction("depthwise", args, data)


def _runs(m: Model, x: Place, y: Place) -> None:
    """Runs of 7 pixels in planes of 6: the last pixel of each is the zero behind a row."""
    args = {"blocks": 1, "height": 5, "width": 6, "pitch": y.pitch, "before": y.before, "size": y.size}
    out = np.concatenate([y.addresses, np.full(28, -1, np.int32)])
    data = {"columns": x.addresses, "starts": np.array([0, 4], np.uint32), "out": out, "added": out.clip(0)}
    data |= {"weights": np.ones(128, np.float32), "bias": np.ones(32, np.float32)}
    m.instruction("runs", args, data | {"runs": np.arange(4, dtype=np.int32) * y.pitch})


def _reuse(m: Model, x: Place, y: Place) -> None:
    room = m.place(1, 1, 2 * 16 * y.vectors * 16 + 3 * 16 * y.vectors + 16, pad=0)
    args = {
        "vectors": y.vectors,
        "length": 3,
        "hashes": 4,
        "before": y.before,
        "size": y.size,
        "room": room.first,
    }
    data = {"columns": x.addresses, "planes": np.ones(16, np.float32), "offsets": np.ones(8, np.float32)}
    data |= {"weights": np.ones(64, np.float32), "bias": np.ones(16, np.float32), "out": y.addresses}
    m.instruction("reuse", args, data | {"added": x.addresses, "mask": y.mask})


ONE = int(np.float32(1).view(np.uint32))


def _spmm8(m: Model, x: Place, y: Place) -> None:
    args = {"rows": 8, "blocks": 1, "vectors": y.vectors, "panel": 2, "before": y.before, "size": y.size}
    args |= {"zero": 3, "high": 255, "unit": ONE, "added_scale": ONE}
    data = {"columns": x.addresses, "starts": np.array([0, 4], np.uint32), "out": y.addresses[:2]}
    data |= {"weights": np.ones(32, np.int32), "bias": np.ones(8, np.int32), "scale": np.ones(8, np.float32)}
    m.instruction("spmm8", args, data | {"added": x.addresses[:2], "mask": y.mask})


def _runs8(m: Model, x: Place, y: Place) -> None:
    args = {"blocks": 1, "height": 5, "width": 6, "pitch": y.pitch, "before": y.before, "size": y.size}
    args |= {"zero": 3, "high": 255, "unit": ONE, "added_scale": ONE}
    out = np.concatenate([y.addresses, np.full(4, -1, np.int32)])
    data = {"columns": x.addresses, "starts": np.array([0, 4], np.uint32), "out": out, "added": out.clip(0)}
    data |= {
        "weights": np.ones(128, np.int32),
        "bias": np.ones(32, np.int32),
        "scale": np.ones(32, np.float32),
    }
    m.instruction("runs8", args, data | {"runs": np.arange(4, dtype=np.int32) * y.pitch})


def _spmv8(m: Model, x: Place, y: Place) -> None:
    out = np.concatenate([y.addresses, np.full(12, -1, np.int32)])
    data = {"columns": x.addresses, "starts": np.array([0, 4], np.uint32), "out": out}
    data |= {
        "weights": np.ones(64, np.int32),
        "bias": np.ones(16, np.int32),
        "scale": np.ones(16, np.float32),
    }
    m.instruction("spmv8", {"rows": 16, "blocks": 1}, data)


def _quantise(m: Model, x: Place, y: Place) -> None:
    args = {**y.args(), "vectors": y.vectors, "scale": ONE, "zero": 7}
    m.instruction("quantise", args, {"in": x.addresses, "mask": y.mask})


def _dequantise(m: Model, x: Place, y: Place) -> None:
    args = {**y.args(), "vectors": y.vectors, "scale": ONE, "zero": 7, "channels": 4}
    m.instruction("dequantise", args, {"in": x.addresses[:1], "mask": y.mask})


def _gather(m: Model, x: Place, y: Place) -> None:
    rows = (x.addresses[:, None] + np.arange(5, dtype=np.int32) * x.pitch).astype(np.int32)
    m.instruction("gather", y.target(), {"rows": rows, "columns": np.arange(6, dtype=np.int32)[::-1]})


def _matmul(m: Model, x: Place, y: Place) -> None:
    args = {**y.args(), "vectors": y.vectors, "groups": 2, "scale": 0x3F800000}
    steps = np.arange(2, dtype=np.int32)
    m.instruction(
        "matmul", args, {"rows": x.addresses, "steps": steps, "columns": x.addresses, "mask": y.mask}
    )


def _softmax(m: Model, x: Place, y: Place) -> None:
    args = {**y.args(), "vectors": y.vectors, "function": 2}
    m.instruction("softmax", args, {"in": x.addresses, "mask": y.mask})


def _norm(m: Model, x: Place, y: Place) -> None:
    args = {**y.args(), "vectors": y.vectors, "group": 2, "pixels": 30, "epsilon": 0x3A000000}
    ones = np.ones(4, np.float32)
    m.instruction("norm", args, {"in": x.addresses, "mask": y.mask, "scale": ones, "shift": ones})


BUILDS: dict[str, Build] = {
    "spmm": _spmm,
    "spmv": _spmv,
    "copy": _copy,
    "pool": _pool,
    "mean": _mean,
    "affine": _affine,
    "binary": _binary,
    "resize": _resize,
    "depthwise": _depthwise,
    "runs": _runs,
    "spmm8": _spmm8,
    "spmv8": _spmv8,
    "runs8": _runs8,
    "quantise": _quantise,
    "dequantise": _dequantise,
    "chain": _chain,
    "gather": _gather,
    "norm": _norm,
    "matmul": _matmul,
    "softmax": _softmax,
    "reuse": _reuse,
}


def _model(kind: str) -> bytes:
    model = Model()
    x, y = model.reads(model.place(4, 5, 6)), model.place(4, 5, 6)
    BUILDS[kind](model, x, y)
    model.writer.port("y", (4, 5, 6), Planes(y.addresses, 5, 6, y.pitch, 0, 0), output=True)
    return model.bytes()


def _survives(raw: bytes) -> bool:
    """True if the file is a model, which then runs; False if it is refused."""
    try:
        session = EngineSession(raw, 2)
    except StorageError:
        return False
    with session:
        if session.arena < 1 << 24 and all(
            np.prod(p.shape) < 1 << 20 for p in session.inputs + session.outputs
        ):
            session.run([np.ones((1, *port.shape), np.float32) for port in session.inputs])
    return True


def _refused(raw: bytes, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        EngineSession(raw)


@pytest.mark.parametrize("kind", BUILDS)
def test_the_files_that_are_damaged_below_run_when_they_are_whole(kind: str) -> None:
    with EngineSession(_model(kind), 2) as session:
        (result,) = session.run([numbers(4, 5, 6)])
        assert kind in ("spmm8", "runs8") or np.isfinite(result).all()  # bytes may look like any float


@pytest.mark.parametrize(
    ("columns", "message"), [([0, 1, 2, 3, 4, -1], "negative"), ([0, 1, 2, 3, 4, 1 << 20], "reads outside")]
)
def test_columns_that_lie_are_refused(columns: list[int], message: str) -> None:
    model = Model()
    x, y = model.reads(model.place(4, 5, 6)), model.place(4, 5, 6)
    rows = np.repeat(x.addresses, 5)
    model.instruction("gather", y.target(), {"rows": rows, "columns": np.array(columns, np.int32)})
    _refused(model.bytes(), message)


@pytest.mark.parametrize("steps", [[0, -5000], [0, 1 << 20], [-(1 << 31), 0], [0, (1 << 31) - 1]])
def test_steps_that_lie_are_refused(steps: list[int]) -> None:
    model = Model()
    x, y = model.reads(model.place(4, 5, 6)), model.place(4, 5, 6)
    args = {**y.args(), "vectors": y.vectors, "groups": 2, "scale": 0x3F800000}
    data = {"rows": x.addresses, "steps": np.array(steps, np.int32), "columns": x.addresses, "mask": y.mask}
    model.instruction("matmul", args, data)
    _refused(model.bytes(), "reads outside")


def test_what_is_wrong_with_a_file_is_said() -> None:
    raw = _model("copy")
    _refused(b"PK" + raw[2:], "this is no billhook model")
    _refused(
        raw[:8] + struct.pack("<I", 2) + raw[12:],
        "has format 2, this engine reads format 1; compile it again",
    )
    _refused(raw[:-1], "truncated")
    _refused(raw + b"\0", "something follows it")
    _refused(raw[:-1] + bytes([raw[-1] ^ 1]), "checksum is wrong")
    _refused(raw[:24] + struct.pack("<Q", 1 << 60) + raw[32:], "arena is too large")
    _refused(raw[:32] + struct.pack("<I", 1 << 31) + raw[36:], "tables reach beyond the end")


@pytest.mark.parametrize(
    ("kind", "argument", "value", "message"),
    [
        ("copy", 0, 0xFFFFFFF0, "writes outside the arena"),
        ("copy", 0, 0, "writes outside the arena"),  # the margin ahead of it
        ("copy", 1, 0x7FFFFFFF, "writes outside the arena"),
        ("copy", 2, 0xFFFFFFFF, "planes are empty or larger"),
        ("copy", 4, 5, "rows of planes overlap"),
        ("copy", 6, 16, "smaller than their pixels"),
        ("copy", 7, 50, "reads outside the arena"),
        ("copy", 10, 0, "steps"),
        ("pool", 10, 6, "unknown mode"),
        ("pool", 11, 0, "windows"),
        ("pool", 13, 65536, "windows"),
        ("pool", 15, 1 << 31, "padding"),
        ("mean", 0, 1 << 20, "writes outside the arena"),
        ("affine", 2, 1, "one mask for every vector"),
        ("affine", 4, 0, "smaller than their pixels"),
        ("binary", 5, 6, "unknown function"),
        ("resize", 11, 0x7FC00000, "scales must be positive"),
        ("reuse", 0, 0xFFFFFFFF, "planes are empty or larger"),
        ("reuse", 1, 0, "slabs"),
        ("reuse", 1, 1, "one hyper-plane for every column and slab"),
        ("reuse", 2, 17, "hyper-planes"),
        ("reuse", 4, 0, "smaller than their pixels"),
        ("reuse", 5, 0x7FFFFFF0, "writes outside the arena"),
        ("spmm", 0, 3, "1, 4 or 8 rows"),
        ("spmm", 1, 0xFFFFFFFF, "number of rows"),
        ("spmm", 2, 0x10000000, "planes are empty or larger"),
        ("spmm", 4, 0, "panels"),
        ("spmm", 6, 8, "smaller than their pixels"),
        ("spmv", 0, 8, "1 or 16 rows"),
        ("runs", 0, 2, "number of rows"),
        ("runs", 2, 1 << 20, "planes are empty or larger"),
        ("runs", 2, 3, "runs leave their planes"),
        ("runs", 4, 5, "rows of planes overlap"),
        ("runs", 6, 8, "smaller than their pixels"),
        ("gather", 0, 0, "writes outside the arena"),
        ("gather", 2, 3, "one address for every row"),
        ("gather", 3, 5, "one column for every pixel"),
        ("gather", 4, 5, "rows of planes overlap"),
        ("gather", 6, 16, "smaller than their pixels"),
        ("gather", 7, 1, "one column for every pixel"),
        ("matmul", 0, 0, "writes outside the arena"),
        ("matmul", 2, 1, "one mask for every vector"),
        ("matmul", 4, 0, "smaller than their pixels"),
        ("matmul", 5, 0, "whole number of groups"),
        ("matmul", 5, 3, "whole number of groups"),
        ("matmul", 5, 4, "one plane for every group and step"),
        ("softmax", 5, 3, "whole number of groups"),
        ("norm", 2, 1, "one mask for every vector"),
        ("norm", 4, 0, "smaller than their pixels"),
        ("norm", 5, 0, "whole number of groups"),
        ("norm", 5, 3, "whole number of groups"),
        ("norm", 7, 0xBF800000, "negative"),
        ("norm", 7, 0x7FC00000, "negative"),
        ("depthwise", 10, 4, "3x3 or 5x5"),
        ("depthwise", 11, 3, "stride 1 or 2"),
        ("depthwise", 12, 3, "padding"),
        ("depthwise", 10, 5, "one window and bias for every channel"),
        ("depthwise", 9, 500, "reads outside the arena"),
        ("spmm8", 0, 1, "4 or 8 rows"),
        ("spmm8", 1, 2, "number of rows"),
        ("spmm8", 4, 0, "panels"),
        ("spmm8", 6, 8, "smaller than their pixels"),
        ("spmm8", 7, 256, "larger than 255"),
        ("spmm8", 12, 1 << 31, "larger than 255"),
        ("spmv8", 0, 8, "16 rows"),
        ("runs8", 0, 2, "number of rows"),
        ("runs8", 2, 3, "runs leave their planes"),
        ("runs8", 8, 999, "larger than 255"),
        ("quantise", 0, 1 << 20, "writes outside the arena"),
        ("quantise", 2, 1, "one mask for every vector"),
        ("quantise", 6, 300, "larger than 255"),
        ("dequantise", 6, 300, "larger than 255"),
        ("dequantise", 7, 5, "one quad for every four channels"),
    ],
)
def test_an_argument_that_lies_is_refused(kind: str, argument: int, value: int, message: str) -> None:
    raw = bytearray(_model(kind))
    struct.pack_into("<I", raw, HEADER + ARGUMENTS + 4 * argument, value)
    _refused(_repaired(raw), rf"instruction 0 \({kind}\): .*{message}")


@pytest.mark.parametrize(
    ("instruction", "argument", "value", "message"),
    [
        (1, 14, 1 << 17, "slots"),
        (1, 15, 0xFFFFFFFF, "slots"),
        (1, 15, 1400, "writes outside the arena"),
        (1, 14, 60000, "writes outside the arena"),
        (0, 0, 1, "number of rows"),
    ],
)
def test_a_chain_that_lies_is_refused(instruction: int, argument: int, value: int, message: str) -> None:
    raw = bytearray(_model("chain"))
    struct.pack_into("<I", raw, HEADER + INSTRUCTION * instruction + ARGUMENTS + 4 * argument, value)
    _refused(_repaired(raw), message)


def test_a_chain_needs_a_product_with_as_many_planes() -> None:
    raw = bytearray(_model("depthwise"))
    struct.pack_into("<I", raw, HEADER + ARGUMENTS + 4 * 14, 2)
    _refused(_repaired(raw), r"instruction 0 \(depthwise\): chained to nothing")
    raw = bytearray(_model("chain"))
    for reference, count in ((0, 5), (1, 45), (2, 5)):  # a fifth channel
        struct.pack_into("<I", raw, HEADER + INSTRUCTION + REFERENCES + 8 * reference + 4, count)
    _refused(_repaired(raw), r"instruction 1 \(depthwise\): chained to another number of planes")


@pytest.mark.parametrize("kind", [k for k in BUILDS if k not in ("pool", "mean", "resize", "chain")])
@pytest.mark.parametrize("address", [-5000, 1 << 20, -(1 << 31), (1 << 31) - 1])
def test_an_address_that_lies_is_refused(kind: str, address: int) -> None:
    raw = bytearray(_model(kind))
    (block,) = struct.unpack_from("<I", raw, HEADER + REFERENCES)
    struct.pack_into("<i", raw, 64 * block, address)
    _refused(_repaired(raw), "reads outside the arena")


@pytest.mark.parametrize("starts", [(1, 4), (0, 5), (0, 3), (4, 0), (0, 0xFFFFFFFF)])
def test_columns_that_no_table_has_are_refused(starts: tuple[int, int]) -> None:
    raw = bytearray(_model("spmm"))
    (block,) = struct.unpack_from("<I", raw, HEADER + REFERENCES + 8)
    struct.pack_into("<2I", raw, 64 * block, *starts)
    _refused(_repaired(raw), r"instruction 0 \(spmm\)")


@pytest.mark.parametrize("at", [0, 1, 0xFFFFFFFF])
def test_data_outside_the_data_is_refused(at: int) -> None:
    raw = bytearray(_model("affine"))
    struct.pack_into("<I", raw, HEADER + REFERENCES, at)
    _refused(_repaired(raw), "data lies (inside the tables|outside the file)")


def test_ports_that_lie_are_refused() -> None:
    port = HEADER + INSTRUCTION
    for offset, value, message in [
        (4, 1, "input 0: its name has no end"),
        (16, 7, "input 0: more dimensions"),
        (20, 5, "input 0: its shape and its planes disagree"),
        (24, 0, "input 0: its shape"),
        (52, 1, "input 0: rows of planes overlap"),
        (56, 1 << 30, "input 0: writes outside the arena"),
        (60, 1 << 30, "input 0: writes outside the arena"),
        (60, 1, "input 0: its planes are smaller"),
        (64 + 44, 6, "output 0: its shape and its planes disagree"),
        (64 + 52, 300, "output 0: reads outside the arena"),
    ]:
        raw = bytearray(_model("affine"))
        struct.pack_into("<I", raw, port + offset, value)
        _refused(_repaired(raw), message)


@pytest.mark.parametrize("word", range(HEADER // 4))
def test_every_field_of_the_header_may_lie(word: int) -> None:
    for raw in (_model("pool"), _model("spmm")):
        (was,) = struct.unpack_from("<I", raw, 4 * word)
        for value in (0, 1, was + 1, was ^ 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
            changed = bytearray(raw)
            struct.pack_into("<I", changed, 4 * word, value)
            runs = _survives(bytes(changed))
            assert value == was or not runs or word >= 6, "magic, version, checksum and size are compared"


def test_a_truncated_file_is_refused() -> None:
    raw = _model("spmm")
    for length in [*range(0, 700, 7), *range(700, len(raw), 61)]:
        _refused(raw[:length], "no billhook model|truncated")
        if length >= HEADER:
            _survives(_repaired(raw[:length]))


@pytest.mark.parametrize("kind", BUILDS)
def test_random_damage_never_crashes(kind: str) -> None:
    raw, random = _model(kind), np.random.default_rng(0)
    for _ in range(60):
        changed = bytearray(raw)
        for place in random.integers(16, min(len(raw), 1200), random.integers(1, 3)):
            changed[place] ^= 1 << int(random.integers(8))
        _survives(_repaired(changed))
