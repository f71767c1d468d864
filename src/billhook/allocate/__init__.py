"""How many units each group keeps: budgets, allocators, and the search for widths that meet a budget.

`allocators` lists the allocators by name. The package itself imports no torch, so that names can be
checked and completed quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from billhook.registry import Registry

if TYPE_CHECKING:
    from billhook.allocate.allocator import Allocator

__all__ = ["allocators"]

allocators: Registry[type[Allocator]] = Registry("allocator", "billhook.allocate.families")
