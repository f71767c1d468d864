"""Sparse methods: which weights of a network become zero or equal. One file is one method.

The package itself imports no torch, so that names can be checked and completed quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from billhook.registry import Registry

if TYPE_CHECKING:
    from billhook.methods.sparse._base import SparseMethod, SparseProblem
    from billhook.methods.sparse._patterns import MAPPINGS, MappingSubject, is_mapping, mapped, patterns_of
    from billhook.methods.sparse._sparsify import (
        Sparsified,
        find_sparse_method,
        sparsify,
        sparsifying_callback,
    )

__all__ = [
    "MAPPINGS",
    "MappingSubject",
    "SparseMethod",
    "SparseProblem",
    "Sparsified",
    "find_sparse_method",
    "is_mapping",
    "mapped",
    "patterns_of",
    "sparse_methods",
    "sparsify",
    "sparsifying_callback",
]

sparse_methods: Registry[type[SparseMethod]] = Registry("sparse method", "billhook.methods.sparse")

_HOMES = {
    "MAPPINGS": "_patterns",
    "MappingSubject": "_patterns",
    "is_mapping": "_patterns",
    "mapped": "_patterns",
    "patterns_of": "_patterns",
    "find_sparse_method": "_sparsify",
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
