"""Sparse methods: which weights of a network become zero or equal. One file is one method.

The package itself imports no torch, so that names can be checked and completed quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from billhook.registry import Registry

if TYPE_CHECKING:
    from billhook.methods.sparse._base import SparseMethod, SparseProblem
    from billhook.methods.sparse._sparsify import Sparsified, sparsify, sparsifying_callback

__all__ = [
    "SparseMethod",
    "SparseProblem",
    "Sparsified",
    "sparse_methods",
    "sparsify",
    "sparsifying_callback",
]

sparse_methods: Registry[type[SparseMethod]] = Registry("sparse method", "billhook.methods.sparse")

_HOMES = {
    "SparseMethod": "_base",
    "SparseProblem": "_base",
    "Sparsified": "_sparsify",
    "sparsify": "_sparsify",
    "sparsifying_callback": "_sparsify",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"billhook.methods.sparse.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
