"""Groups written by hand, for tests of what works on groups without a network."""

from __future__ import annotations

import numpy as np

from billhook.graph.groups import ChannelGroup, Member, Role


def member(tensor: str, axis: int, role: Role, size: int, width: int = 1) -> Member:
    """Return a member whose units own `width` neighbouring indices each."""
    return Member(tensor, axis, role, np.arange(size * width).reshape(size, width))


def group(name: str, size: int, *members: Member) -> ChannelGroup:
    """Return a prunable group."""
    return ChannelGroup(name, size, members)
