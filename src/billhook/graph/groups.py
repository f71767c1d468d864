"""The table of what can leave together: `ChannelGroup`s of a captured network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from billhook.errors import NameNotFoundError

Role = Literal["out", "in", "through"]
IndexMap = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Member:
    """One axis of one named tensor that a group owns.

    Attributes:
        tensor: Parameter or buffer name, as in `named_parameters` / `named_buffers`.
        axis: Axis of that tensor.
        role: "out" produces the channel, "in" consumes it, "through" follows it (norms, depthwise).
        index: Indices on `axis` per unit; shape [size, width]. Unit u owns `index[u]`.
    """

    tensor: str
    axis: int
    role: Role
    index: IndexMap = field(repr=False)

    @property
    def width(self) -> int:
        """Indices per unit on this axis."""
        return int(self.index.shape[1])


@dataclass(frozen=True)
class Reason:
    """Why channels are frozen, and the line of the user's code that caused it."""

    text: str
    operator: str = ""
    source: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.source})" if self.source else self.text


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Units that are interchangeable: each can leave alone, and takes all its indices with it.

    A unit is one channel of a plain convolution, one head of an attention layer, one group of a
    grouped convolution. Names and order are stable from run to run.

    Attributes:
        id: Name of the layer that produces the channels, with a suffix if it produces several groups.
        size: Number of units.
        members: Axes of tensors the units own.
        frozen: Why nothing may leave; None if units may.
        mixed: Why silence is only masked, not exact (layer norm, …); None if exact.
    """

    id: str
    size: int
    members: tuple[Member, ...]
    frozen: Reason | None = None
    mixed: Reason | None = None

    @property
    def prunable(self) -> bool:
        """True if units may leave."""
        return self.frozen is None

    @cached_property
    def width(self) -> int:
        """Channels per unit where they are produced (1 for plain convolutions, head size for heads)."""
        produced = [m.width for m in self.members if m.role == "out"]
        return min(produced or [m.width for m in self.members])

    def __str__(self) -> str:
        size = f"{self.size} units" + (f" of {self.width} channels" if self.width > 1 else "")
        why = f"; frozen: {self.frozen}" if self.frozen else f"; mixed: {self.mixed}" if self.mixed else ""
        return f"{self.id}: {size}{why}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "id": self.id,
            "size": self.size,
            "width": self.width,
            "prunable": self.prunable,
            "frozen": None if self.frozen is None else str(self.frozen),
            "mixed": None if self.mixed is None else str(self.mixed),
            "members": [
                {"tensor": m.tensor, "axis": m.axis, "role": m.role, "width": m.width} for m in self.members
            ],
        }


class Groups(Sequence[ChannelGroup]):
    """All groups of a network in the order in which their channels are produced."""

    def __init__(self, groups: Sequence[ChannelGroup]) -> None:
        self._groups = tuple(groups)
        self._by_id = {g.id: g for g in self._groups}

    @overload
    def __getitem__(self, key: int | str) -> ChannelGroup: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[ChannelGroup]: ...
    def __getitem__(self, key: int | str | slice) -> ChannelGroup | Sequence[ChannelGroup]:
        if isinstance(key, str):
            if key not in self._by_id:
                raise NameNotFoundError("group", key, self._by_id)
            return self._by_id[key]
        return self._groups[key]

    def __len__(self) -> int:
        return len(self._groups)

    def __repr__(self) -> str:
        return f"<Groups: {len(self.prunable)} prunable, {len(self.frozen)} frozen>"

    def __str__(self) -> str:
        return "\n".join(str(g) for g in self._groups)

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter(self._groups)

    @property
    def prunable(self) -> tuple[ChannelGroup, ...]:
        """Groups from which units may leave."""
        return tuple(g for g in self._groups if g.prunable)

    @property
    def frozen(self) -> tuple[ChannelGroup, ...]:
        """Groups that must stay whole, each with its reason."""
        return tuple(g for g in self._groups if not g.prunable)
