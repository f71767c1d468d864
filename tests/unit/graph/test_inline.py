"""Blocks under `no_grad` and a disabled autocast are part of the network like everything else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from billhook.errors import CaptureError
from billhook.graph import capture
from tests.oracle import prune_half, randomize


class Wrapped(nn.Module):
    """Blocks inside blocks; one with two results."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 8), nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            x = self.a(x).relu()
            with torch.no_grad():
                left, right = x * 2, x.sigmoid()
        x = self.b(left * right)
        with torch.autocast("cpu", enabled=False):
            return self.c(x.relu())


def test_channels_flow_through_blocks() -> None:
    pruned = prune_half(randomize(Wrapped()), torch.randn(4, 3))
    assert {g.id: g.size for g in pruned.graph.groups.prunable} == {"a": 8, "b": 6}
    assert isinstance(pruned.small, Wrapped)
    assert all("wrap_with" not in str(n.target) for n in pruned.graph.program.graph.nodes)


class Casting(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            x = self.a(x)
        return self.c(self.b(x.float()))


def test_an_enabled_autocast_is_explained() -> None:
    with pytest.raises(CaptureError, match=r"torch\.autocast on") as caught:
        capture(Casting(), torch.zeros(4, 3))
    assert __file__ in str(caught.value)
    assert "leave autocast to the code that calls the network" in str(caught.value)


class Conditional(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = torch.cond(x.sum() > 0, lambda y: y * 2, lambda y: y - 1, (x,))
        return self.c(self.b(x))


def test_a_part_under_a_condition_is_explained() -> None:
    with pytest.raises(CaptureError, match="forward uses cond, which runs a part of the network") as caught:
        capture(Conditional(), torch.zeros(4, 3))
    assert __file__ in str(caught.value)
