"""Lowering: a captured network becomes an `ir.Network` that computes one sample."""

from __future__ import annotations

from billhook.compile.lower.network import lower

__all__ = ["lower"]
