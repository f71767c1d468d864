"""The engine as a loaded library; the only file that knows its C interface (engine/include/billhook.h)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_double, c_int, c_size_t, c_uint32, c_void_p
from functools import cache
from pathlib import Path

from billhook.errors import EngineError, InputError, NameNotFoundError, StorageError

VARIABLE = "BILLHOOK_ENGINE"
# Of one family of processors a better one stands behind lesser ones.
ISAS = {
    **{"best": 0, "portable": 1, "avx2": 2, "avxvnni": 7, "avx512": 3, "avx512vnni": 5},
    **{"neon": 4, "dotprod": 6},
}
MESSAGE = 256
ALIGN = 64
ENGINE = Path(__file__).parent / "engine"
LIBRARY = "libbillhook.so"
HEADER = ENGINE / "include" / "billhook.h"


class PortRecord(ctypes.Structure):
    """`bh_port`: one input or output, without the batch dimension."""

    _fields_ = (
        ("name", c_char_p),
        ("rank", c_uint32),
        ("shape", POINTER(c_uint32)),
        ("size", c_size_t),
    )


_Pointers = POINTER(c_void_p)
_FUNCTIONS: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "bh_text": (c_char_p, (c_int,)),
    "bh_version": (c_char_p, ()),
    "bh_model_open": (c_int, (c_char_p, _Pointers, c_char_p)),
    "bh_model_from_memory": (c_int, (c_void_p, c_size_t, _Pointers, c_char_p)),
    "bh_model_free": (None, (c_void_p,)),
    "bh_model_inputs": (c_uint32, (c_void_p,)),
    "bh_model_outputs": (c_uint32, (c_void_p,)),
    "bh_model_input": (PortRecord, (c_void_p, c_uint32)),
    "bh_model_output": (PortRecord, (c_void_p, c_uint32)),
    "bh_model_arena": (c_size_t, (c_void_p,)),
    "bh_model_instructions": (c_uint32, (c_void_p,)),
    "bh_has": (c_int, (c_int,)),
    "bh_session_create": (c_int, (c_void_p, c_uint32, c_int, _Pointers, c_char_p)),
    "bh_session_free": (None, (c_void_p,)),
    "bh_session_isa": (c_char_p, (c_void_p,)),
    "bh_session_run": (c_int, (c_void_p, _Pointers, _Pointers, c_size_t)),
    "bh_session_time": (c_int, (c_void_p, c_uint32, c_uint32, POINTER(c_double))),
}


def library() -> ctypes.CDLL:
    """Return the engine, loaded once: the file that BILLHOOK_ENGINE names, or the one beside the package.

    Raises:
        EngineError: if there is none, or it is no engine; says how to build it.
    """
    return _loaded(str(library_path()))


def library_path() -> Path:
    """Return where `library` looks: the file that BILLHOOK_ENGINE names, or the one beside the package."""
    return Path(os.environ.get(VARIABLE) or ENGINE / LIBRARY).absolute()


def isas() -> tuple[str, ...]:
    """Return the instruction sets that this processor and this build have, the best one last."""
    return tuple(name for name, number in ISAS.items() if number and library().bh_has(number))


def isa_number(name: str) -> int:
    """Return the number of an instruction set by name.

    Raises:
        NameNotFoundError: if there is none of that name.
        InputError: if the processor, or the build, lacks it.
    """
    if name not in ISAS:
        raise NameNotFoundError("instruction set", name, ISAS)
    if not library().bh_has(ISAS[name]):
        if not isas():
            raise InputError(f"this processor lacks what {library_path()} was built for; {_how_to_build()}")
        raise InputError(f"this processor or build of the engine lacks {name!r}; it has {', '.join(isas())}")
    return ISAS[name]


def checked(status: int, message: bytes, about: str) -> None:
    """Raise the error that belongs to a status of the engine.

    Args:
        status: What a function returned.
        message: What it wrote to `why`; its general text if empty.
        about: The model in words; begins the sentence.
    """
    if not status:
        return
    text = f"{about}: {(message or library().bh_text(status)).decode(errors='replace')}"
    match status:
        case 1:
            raise StorageError(f"{text}; check the path")
        case 2:
            raise StorageError(f"{text}; compile the network again")
        case 3:
            raise EngineError(text)
        case _:
            raise InputError(text)


def pointers(addresses: Sequence[int]) -> ctypes.Array[c_void_p]:
    """Return an array of pointers that a function takes."""
    return (c_void_p * max(len(addresses), 1))(*addresses)


@cache
def _loaded(path: str) -> ctypes.CDLL:
    if not Path(path).is_file():
        raise EngineError(f"billhook's engine is not built: there is no {path}; {_how_to_build()}")
    try:
        found = ctypes.CDLL(path)
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(found, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise EngineError(f"{path} is not billhook's engine ({error}); {_how_to_build()}") from error
    return found


def _how_to_build() -> str:
    return (
        f"with a C compiler and CMake: cmake -S {ENGINE} -B build && cmake --build build, "
        f"then set {VARIABLE} to the path of build/{LIBRARY}"
    )
