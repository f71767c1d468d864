"""PruningNet: a network that generates the weights of candidates from their widths (MetaPruning)."""

from __future__ import annotations
