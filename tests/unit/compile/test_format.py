"""What Python writes is what the engine's header says."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np
import pytest

import billhook.compile
from billhook.compile import format as model_file
from billhook.compile.format import KINDS, Planes, Writer
from billhook.compile.ir import RELU
from billhook.compile.tiles import IN_LANES, RUN
from billhook.errors import InputError

HEADER = (Path(billhook.compile.__file__).parent / "engine" / "format.h").read_text()
PLANES = Planes(np.array([16], np.int32), 2, 3, 4, 16, 16)


def enumerators(text: str) -> list[list[str]]:
    """Names of every enumeration, in order."""
    plain = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    bodies = re.findall(r"enum\s*\{([^}]*)\}", plain)
    return [re.findall(r"[A-Z][A-Z0-9_]+", re.sub(r"=[^,]*", "", body)) for body in bodies]


def test_kinds_and_activations_have_the_numbers_of_the_header() -> None:
    kinds = next(e for e in enumerators(HEADER) if "BH_SPMM" in e)
    assert [k.removeprefix("BH_").lower() for k in kinds[:-1]] == list(KINDS)
    functions = next(e for e in enumerators(HEADER) if "BH_NONE" in e)
    assert [f.removeprefix("BH_").lower() for f in functions] == list(model_file.ACTIVATIONS)


# Kinds whose first arguments, or whose data, are those of another one: prefix, and how many arguments.
BORROWED = {
    "affine": ("FLAT_", 0),
    "binary": ("FLAT_", 0),
    "softmax": ("FLAT_", 0),
    "spmm8": ("SPMM_", 7),
    "spmv8": ("SPMV_", 3),
    "runs8": ("RUNS_", 7),
    "quantise": ("FLAT_", 5),
    "dequantise": ("FLAT_", 5),
}


def of_header(prefix: str, suffix: str) -> list[str]:
    """Names of the arguments (or data, if the suffix says so) with a prefix, in order."""
    found = [e for e in enumerators(HEADER) if e and e[0].startswith(prefix)]
    fitting = [e for e in found if e[0].endswith("_REF") == bool(suffix)]
    return [n.removeprefix(prefix).removesuffix(suffix).lower() for e in fitting for n in e]


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_and_data_are_in_the_order_of_the_header(kind: str) -> None:
    own = "CONVERT_" if kind in ("quantise", "dequantise") else f"{kind.upper()}_"
    other, shared = BORROWED.get(kind, ("", 0))
    args = of_header(other, "")[: shared or None] if other else []
    refs = of_header(own, "_REF") or of_header(other, "_REF")
    if kind == "runs8":  # but for its runs it is SPMM8
        own, refs = "SPMM8_", [*of_header("SPMM8_", "_REF")[:-1], *refs]
    assert [*args, *of_header(own, "")] == list(KINDS[kind][0])
    assert refs == list(KINDS[kind][1])


@pytest.mark.parametrize("name", ["MAGIC", "VERSION", "ALIGN", "VECTOR", "MAX_RANK", "REFS", "ARGS"])
def test_constants_are_those_of_the_header(name: str) -> None:
    ours = {"REFS": "REFS_PER", "ARGS": "ARGS_PER"}.get(name, name)
    theirs = {"VERSION": "FORMAT_VERSION"}.get(name, name)
    stated = re.search(rf"#define BH_{theirs} (\S+)", HEADER)
    assert stated is not None
    value = getattr(model_file, ours)
    assert stated[1].strip('"') == (value.decode() if isinstance(value, bytes) else str(value))


def test_blocks_of_lanes_are_as_large_as_in_the_header() -> None:
    assert f"#define BH_RUNS_ROWS {IN_LANES} " in HEADER
    assert f"#define BH_RUN {RUN} " in HEADER


def test_a_file_says_how_long_it_is_and_what_its_sum_is() -> None:
    writer = Writer(arena=64)
    writer.instruction("affine", {"out": 16}, {"in": np.array([16], np.int32)}, RELU)
    writer.port("x", (1, 2, 3), PLANES, output=False)
    file = writer.bytes()
    assert file[:8] == b"BILLHOOK"
    assert len(file) % 64 == 0
    assert int.from_bytes(file[12:16], "little") == zlib.crc32(file[64:])
    assert int.from_bytes(file[16:24], "little") == len(file)


def test_equal_data_is_stored_once() -> None:
    writer = Writer()
    table = np.arange(100, dtype=np.int32)
    assert writer.data(table) == writer.data(table.copy())
    assert writer.data(table) != writer.data(table + 1)
    assert writer.data(table[:0]) == (0, 0)


def test_a_tensor_of_too_many_dimensions_is_refused() -> None:
    with pytest.raises(InputError, match="'x' has 7 dimensions"):
        Writer().port("x", (1,) * 7, PLANES, output=False)
