"""Group tables of small networks, as text that a person can check against the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook.graph import ChannelGroup, Groups, Member, capture

FOLDER = Path(__file__).parent


class Residual(nn.Module):
    """A block with a residual, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.inner, self.outer = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.stem(x)).relu()
        x = x + self.outer(self.inner(x).relu())
        return self.head(x.mean((2, 3)))


class C2f(nn.Module):
    """One half of the channels passes, the other is worked on twice; everything is put side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.steps = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)])
        self.last = nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).relu().chunk(2, 1))
        for step in self.steps:
            parts.append(step(parts[-1]).relu())
        return self.last(torch.cat(parts, 1))


class Attention(nn.Module):
    """Two heads over tokens, with a residual, a layer norm and a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.size = 2, 3
        self.embed, self.norm = nn.Linear(4, 6), nn.LayerNorm(6)
        self.token = nn.Parameter(torch.zeros(1, 1, 6))
        self.qkv, self.project = nn.Linear(6, 18), nn.Linear(6, 6)
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((self.token.expand(len(x), -1, -1), self.embed(x)), 1)
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) * self.size**-0.5).softmax(-1) @ v
        x = x + self.project(mixed.transpose(1, 2).flatten(2))
        x = x + self.down(nn.functional.gelu(self.up(x)))
        return self.head(x[:, 0])


IMAGE, TOKENS = torch.zeros(1, 3, 4, 4), torch.zeros(1, 5, 4)
TABLES: dict[str, tuple[Callable[[], nn.Module], Tensor, str]] = {
    "residual": (Residual, IMAGE, "freeze"),
    "c2f": (C2f, IMAGE, "freeze"),
    "attention": (Attention, TOKENS, "freeze"),
    "attention_mixing_allowed": (Attention, TOKENS, "allow"),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_table_is_the_reviewed_one(name: str, update_golden: bool) -> None:
    build, inputs, mixing = TABLES[name]
    text = table(capture(build(), inputs, mixing="allow" if mixing == "allow" else "freeze").groups)
    path = FOLDER / f"groups_{name}.txt"
    if update_golden:
        path.write_text(text)
    assert text == path.read_text(), "if the new table is right: pytest tests/golden --update-golden"


def table(groups: Groups) -> str:
    """Return groups as text: a line per group, a line per member with the indices of every unit."""
    return "\n".join(line for group in groups for line in [_head(group), *map(_member, group.members), ""])


def _head(group: ChannelGroup) -> str:
    state = ""
    if group.frozen is not None:
        state = f"  frozen: {group.frozen.text}"
    elif group.mixed is not None:
        state = f"  mixed: {group.mixed.text}"
    return f"{group.id}: {group.size} units of {group.width}{state}"


def _member(member: Member) -> str:
    units = " | ".join(_ranges(unit) for unit in member.index)
    return f"    {member.role:7s} {member.tensor}[axis {member.axis}]  {units}"


def _ranges(indices: np.ndarray) -> str:  # type: ignore[type-arg]
    runs = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    return " ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)
