"""A compiled network that runs: a model file, its threads and its activations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from ctypes import byref, c_double, c_void_p, create_string_buffer
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from billhook.compile.library import ALIGN, MESSAGE, PortRecord, checked, isa_number, library, pointers
from billhook.errors import InputError

MOST_THREADS = 1024
Floats = npt.NDArray[np.float32]


class EnginePort(NamedTuple):
    """An input or output.

    Attributes:
        name: Of the argument or the output.
        shape: Of one sample, without the batch dimension.
    """

    name: str
    shape: tuple[int, ...]


class EngineSession:
    """Runs a model file on this processor; callers in several threads take turns.

    Attributes:
        inputs, outputs: Names and shapes.
        instructions: How many the model has; see `time`.
        arena: Bytes of activations.
    """

    def __init__(self, model: str | os.PathLike[str] | bytes, threads: int = 1, isa: str = "best") -> None:
        """Open a model.

        Args:
            model: Path of a file, which is mapped, or its bytes, which are copied.
            threads: That work on one sample, the caller's included.
            isa: Instruction set: one of `billhook.compile.library.isas()`, or "best".
        Raises:
            StorageError: if the file cannot be read, is no model, or is damaged.
            InputError: if the number of threads or the instruction set makes no sense here.
            EngineError: if the engine is not built, or memory does not suffice.
        """
        self._model = self._session = c_void_p()
        self._turn, self._process = Lock(), os.getpid()
        self._library, number = library(), isa_number(isa)
        if not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
            raise InputError(f"threads is {threads!r}; it must be a number from 1 to {MOST_THREADS}")
        about = "the model" if isinstance(model, bytes) else f"the model {Path(model)}"
        why = create_string_buffer(MESSAGE)
        opened, session = c_void_p(), c_void_p()
        if isinstance(model, bytes):
            self._bytes = _aligned(model)  # which the engine reads as long as the session lives
            status = self._library.bh_model_from_memory(
                self._bytes.ctypes.data, len(model), byref(opened), why
            )
        else:
            status = self._library.bh_model_open(os.fsencode(model), byref(opened), why)
        checked(status, why.value, about)
        self._model = opened
        status = self._library.bh_session_create(opened, threads, number, byref(session), why)
        if status:
            self.close()
        checked(status, why.value, about)
        self._session = session
        count, describe = self._library.bh_model_inputs, self._library.bh_model_input
        self.inputs = tuple(_port(describe(opened, i)) for i in range(count(opened)))
        count, describe = self._library.bh_model_outputs, self._library.bh_model_output
        self.outputs = tuple(_port(describe(opened, i)) for i in range(count(opened)))
        self.instructions = int(self._library.bh_model_instructions(opened))
        self.arena = int(self._library.bh_model_arena(opened))

    @property
    def isa(self) -> str:
        """Name of the instruction set that runs."""
        return str(self._library.bh_session_isa(self._open()).decode())

    def run(self, inputs: Sequence[Floats]) -> list[Floats]:
        """Return the outputs for a batch, float32 [batch, *shape] each.

        Args:
            inputs: Arrays [batch, *shape], in the order of `inputs`.
        Raises:
            InputError: if number, shapes or batches of the arrays do not fit.
        """
        self._open()
        arrays = self._checked(inputs)
        batch = arrays[0].shape[0] if arrays else 1
        outputs = [np.empty((batch, *port.shape), np.float32) for port in self.outputs]
        with self._turn:
            status = self._library.bh_session_run(
                self._open(),
                pointers([a.ctypes.data for a in arrays]),
                pointers([a.ctypes.data for a in outputs]),
                batch,
            )
        checked(status, b"", "the model")
        return outputs

    def time(self, instruction: int, repeat: int = 10) -> float:
        """Return the fastest of some runs of one instruction, on what the last sample left; in seconds."""
        if not 0 <= instruction < self.instructions or repeat < 1:
            raise InputError(
                f"instruction {instruction} of {self.instructions}, {repeat} times, cannot be timed"
            )
        seconds = c_double()
        with self._turn:
            status = self._library.bh_session_time(self._open(), instruction, repeat, byref(seconds))
        checked(status, b"", f"instruction {instruction}")
        return seconds.value

    def close(self) -> None:
        """Give threads, memory and file back; harmless the second time."""
        if os.getpid() != self._process:  # the threads are the parent's, and so is all the rest
            self._session = self._model = c_void_p()
            return
        with self._turn:
            session, self._session = self._session, c_void_p()
            model, self._model = self._model, c_void_p()
        if session:
            self._library.bh_session_free(session)
        if model:
            self._library.bh_model_free(model)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _open(self) -> c_void_p:
        if os.getpid() != self._process:
            raise InputError("the session belongs to the process that this one was forked from; open it here")
        if not self._session:
            raise InputError("the session is closed; open the model again")
        return self._session

    def _checked(self, inputs: Sequence[Floats]) -> list[Floats]:
        if len(inputs) != len(self.inputs):
            names = ", ".join(repr(port.name) for port in self.inputs)
            raise InputError(f"{len(inputs)} inputs were given; the model has {len(self.inputs)}: {names}")
        arrays = [np.asarray(x, np.float32, order="C") for x in inputs]
        for array, port in zip(arrays, self.inputs, strict=True):
            if array.shape[1:] != port.shape or array.shape[:1] != arrays[0].shape[:1]:
                batch = arrays[0].shape[0] if arrays[0].ndim else "batch"
                expected = ", ".join(map(str, (batch, *port.shape)))
                given = ", ".join(map(str, array.shape))
                raise InputError(f"input {port.name!r} has the shape [{given}]; it must be [{expected}]")
        return arrays


def _aligned(raw: bytes) -> npt.NDArray[np.uint8]:
    room = np.empty(len(raw) + ALIGN, np.uint8)
    first = -room.ctypes.data % ALIGN
    aligned = room[first:]
    aligned[: len(raw)] = np.frombuffer(raw, np.uint8)
    return aligned


def _port(record: PortRecord) -> EnginePort:
    return EnginePort(record.name.decode(errors="replace"), tuple(record.shape[: record.rank]))
