"""Equivalent rewrites: networks that compute the same and can be pruned further."""

from __future__ import annotations

from billhook.fuse.channel_selection import ChannelSelection, channel_selection

__all__ = ["ChannelSelection", "channel_selection"]
