"""Model files of one instruction, and their runs on everything that this processor has.

The instruction's output is filled with NaN beforehand and compared with all its margins: an operator that
forgets a float, or writes one too many, shows.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from billhook.compile.format import VECTOR, Planes, Writer
from billhook.compile.ir import NONE, Activation
from billhook.compile.library import isas
from billhook.compile.session import EngineSession

Floats = npt.NDArray[np.float32]
THREADS = (1, 2, 4)
BATCHES = (1, 3)


def up(count: int) -> int:
    """Round up to whole vectors."""
    return -(-count // VECTOR) * VECTOR


@dataclass(frozen=True)
class Place:
    """Where a value lies: planes `stride` apart, with zeros around them."""

    first: int
    channels: int
    height: int
    width: int
    pitch: int
    before: int
    size: int

    @property
    def stride(self) -> int:
        """Floats from plane to plane."""
        return self.before + self.size

    @property
    def addresses(self) -> npt.NDArray[np.int32]:
        """Of pixel (0, 0) of each plane."""
        return (self.first + self.stride * np.arange(self.channels)).astype(np.int32)

    @property
    def vectors(self) -> int:
        """Vectors of 16 pixels of a plane."""
        return up((self.height - 1) * self.pitch + self.width) // VECTOR

    @property
    def mask(self) -> npt.NDArray[np.uint16]:
        """Bits of the lanes that are pixels."""
        lanes = np.zeros((self.height, self.pitch), bool)
        lanes[:, : self.width] = True
        flat = np.zeros(self.vectors * VECTOR, bool)
        count = min(flat.size, lanes.size)
        flat[:count] = lanes.reshape(-1)[:count]
        return (flat.reshape(-1, VECTOR) << np.arange(VECTOR)).sum(1).astype(np.uint16)

    @property
    def planes(self) -> Planes:
        """The same for a port."""
        return Planes(self.addresses, self.height, self.width, self.pitch, self.before, self.size)

    @property
    def whole(self) -> Planes:
        """Everything from the margin ahead to the end of each plane, as one row."""
        length = self.stride
        return Planes(self.addresses - np.int32(self.before), 1, length, length, 0, length)

    def args(self) -> dict[str, int]:
        """Arguments of a written value."""
        return {"out": self.first, "out_stride": self.stride, "before": self.before, "size": self.size}

    def target(self) -> dict[str, int]:
        """Arguments of a written value of COPY, POOL and RESIZE."""
        return {**self.args(), "out_height": self.height, "out_width": self.width, "out_pitch": self.pitch}

    def source(self) -> dict[str, int]:
        """Arguments of a read value."""
        return {"height": self.height, "width": self.width, "pitch": self.pitch}

    def drawn(self, values: Floats) -> Floats:
        """`values` [..., channels, height, width] as `whole` shows them."""
        rows = np.zeros((*values.shape[:-1], self.pitch), np.float32)
        rows[..., : self.width] = values
        flat = rows.reshape(*values.shape[:-2], -1)
        result = np.zeros((*values.shape[:-2], self.stride), np.float32)
        end = min(flat.shape[-1], self.size)
        result[..., self.before : self.before + end] = flat[..., :end]
        return result


@dataclass
class Model:
    """One instruction between inputs and an output."""

    writer: Writer = field(default_factory=Writer)
    end: int = 0  # of what is placed
    inputs: list[Place] = field(default_factory=list)
    output: Place | None = None

    def place(self, channels: int, height: int = 1, width: int = 1, *, pad: int = 1) -> Place:
        """Take room for a value; with `pad` 0 there are no margins, and rows follow one another."""
        pitch = width + pad
        before = up(pad * pitch + pad)
        size = up(height * pitch + pad * pitch) if pad else up(height * width)
        place = Place(self.end + before, channels, height, width, pitch, before, size)
        self.end = place.first + (channels - 1) * place.stride + size
        return place

    def vector(self, channels: int) -> Place:
        """Take room for one float per channel."""
        place = Place(self.end, channels, 1, 1, 1, 0, 1)
        self.end = up(self.end + channels)
        return place

    def reads(self, place: Place) -> Place:
        """Make the value an input."""
        shape = (place.channels, place.height, place.width)
        self.writer.port(f"x{len(self.inputs)}", shape, place.planes, output=False)
        self.inputs.append(place)
        return place

    def writes(self, place: Place) -> Place:
        """Make the value the output, which is full of NaN at first."""
        length = place.stride * place.channels
        dirt = self.end
        self.end += up(length)
        self.writer.port(
            "dirt", (length,), Planes(np.array([dirt], np.int32), 1, length, length, 0, length), output=False
        )
        self.writer.instruction(
            "copy",
            {
                **{"out": place.first - place.before, "out_stride": length},
                **{"out_height": 1, "out_width": length, "out_pitch": length, "size": 0},
                **{"height": 1, "width": length, "pitch": length, "step_y": 1, "step_x": 1},
            },
            {"in": np.array([dirt], np.int32)},
        )
        self.writer.port("y", (place.channels, place.stride), place.whole, output=True)
        self.output = place
        return place

    def instruction(
        self,
        kind: str,
        args: Mapping[str, int],
        data: Mapping[str, npt.NDArray[Any]],
        activation: Activation = NONE,
    ) -> None:
        """Append the instruction."""
        self.writer.instruction(kind, args, data, activation)

    def bytes(self) -> bytes:
        """Return the file."""
        self.writer.arena = up(self.end)
        return self.writer.bytes()

    def check(self, inputs: Sequence[Floats], expected: Floats, tolerance: float = 1e-6) -> None:
        """Run everywhere with these inputs [batch, channels, height, width]; compare with `expected`."""
        assert self.output is not None
        raw, output = self.bytes(), self.output
        dirt = np.full((len(expected), output.stride * output.channels), np.nan, np.float32)
        drawn = output.drawn(expected)
        for isa, threads, batch in itertools.product(isas(), THREADS, BATCHES):
            with EngineSession(raw, threads, isa) as session:
                given = [x[:batch] for x in (*inputs, dirt)]
                (result,) = session.run(given)
            worst = f"{isa}, {threads} threads, batch {batch}"
            np.testing.assert_allclose(result, drawn[:batch], rtol=tolerance, atol=tolerance, err_msg=worst)


def numbers(*shape: int, seed: int = 0) -> Floats:
    """Random numbers for a batch of the largest size."""
    return np.random.default_rng(seed).standard_normal((max(BATCHES), *shape)).astype(np.float32)
