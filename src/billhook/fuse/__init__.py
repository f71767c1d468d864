"""Equivalent rewrites: networks that compute the same and can be pruned further."""

from __future__ import annotations

from billhook.fuse.channel_selection import ChannelSelection, channel_selection
from billhook.fuse.copies import ChannelCopy
from billhook.fuse.fuse import Fused, fuse
from billhook.fuse.lower import lower
from billhook.fuse.options import Fusion
from billhook.graph.fusions import passes

__all__ = [
    "ChannelCopy",
    "ChannelSelection",
    "Fused",
    "Fusion",
    "channel_selection",
    "fuse",
    "lower",
    "passes",
]
