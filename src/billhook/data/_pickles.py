"""Reading the pickles of CIFAR without running what is in them.

A pickle is a program, and `pickle.load` runs it: a data set from an unknown place could do anything.
Two fences make these files plain data again. First, `pickletools.genops` walks through the file
without executing it; only the opcodes that build dicts, lists, strings, numbers and arrays may occur,
with a memo no larger than the file, so that nothing is built before everything has been looked at.
Then a restricted unpickler resolves exactly the few names that numpy writes for an array, and
resolves them to the stand-ins below, not to numpy: those only keep shape, type and bytes, and check
that they fit together. Any other name is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from billhook.errors import DataError

MAX_BYTES = 256 * 2**20  # the largest CIFAR file has 155 MB

_OPCODES = (
    "PROTO FRAME STOP MARK POP POP_MARK DUP "
    "PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET "
    "NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 "
    "STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS "
    "EMPTY_DICT DICT SETITEM SETITEMS GLOBAL STACK_GLOBAL REDUCE BUILD"
)


def read_pickle(path: Path) -> dict[str, Any]:
    """Return the dictionary in `path`; its keys as text, its arrays as numpy arrays of bytes.

    Raises:
        DataError: if the file is truncated, too large, no dictionary, or holds anything else than
            data; nothing of it has been executed.
    """
    advice = "delete it and get the data set again from a source you trust"
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(f"{path} has {size:,} bytes, more than any file of this data set; {advice}")
        raw = path.read_bytes()
        _inspect(raw)
        content = _Unpickler(io.BytesIO(raw), encoding="bytes").load()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except _Refused as error:
        raise DataError(f"{path} is refused: it holds {error}, not just data; {advice}") from None
    except DataError:
        raise
    except Exception as error:  # what a damaged program raises is not documented, and can be anything
        raise DataError(f"{path} is truncated or damaged ({error}); {advice}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__} instead of a dictionary; {advice}")
    return {_text(key): _plain(value) for key, value in content.items()}


class _Refused(Exception):
    """Something in a pickle that is not data."""


def _inspect(raw: bytes) -> None:
    """Look at every opcode without executing one."""
    allowed = frozenset(_OPCODES.split())
    for opcode, argument, _ in pickletools.genops(raw):
        if opcode.name not in allowed:
            raise _Refused(f"the instruction {opcode.name}")
        if opcode.name.endswith("PUT") and not 0 <= int(str(argument)) <= len(raw):
            raise _Refused("a memo index that no file of this size needs")


class _Type:
    """Stands for numpy.dtype; only bytes are known."""

    def __init__(self, name: object, *_: object) -> None:
        if _text(name) not in ("u1", "|u1", "uint8"):
            raise _Refused(f"an array of type {_text(name)!r}")

    def __setstate__(self, state: object) -> None:
        pass  # byte order and padding: without meaning for single bytes


class _Array:
    """Stands for numpy.ndarray; takes the state that numpy writes."""

    value: npt.NDArray[np.uint8] | None = None

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), tuple(shape), _Type(), bool() | int() as fortran, bytes(content)):
                if all(isinstance(n, int) and n >= 0 for n in shape) and math.prod(shape) == len(content):
                    pixels = np.frombuffer(content, np.uint8)
                    self.value = pixels.reshape(shape[::-1]).T if fortran else pixels.reshape(shape)
                    return
        raise _Refused("an array whose shape and bytes do not fit together")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _encode(text: object, encoding: object = "latin1") -> bytes:
    # Protocol 2 has no bytes, so Python 3 writes them as text plus a call of this function.
    if not isinstance(text, str) or _text(encoding) not in ("latin1", "latin-1"):
        raise _Refused("text in an unusual encoding")
    return text.encode("latin1")


class _Name:
    """What a name in a pickle stands for: may be called, not changed (BUILD would set attributes)."""

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise _Refused("an instruction to change a function")


_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): _Name(_reconstruct),
    ("numpy._core.multiarray", "_reconstruct"): _Name(_reconstruct),
    ("numpy", "ndarray"): _Name(_Array),
    ("numpy", "dtype"): _Name(_Type),
    ("_codecs", "encode"): _Name(_encode),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise _Refused(f"the name {module}.{name}")
        return _NAMES[module, name]


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _plain(value: object) -> object:
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, list):
        return [_text(item) if isinstance(item, bytes) else item for item in value]
    return value
