"""Every sparse method keeps the contract."""

from __future__ import annotations

from typing import Any

from billhook.methods.sparse import sparse_methods
from tests.contract.sparse_contract import SparseContract

FEW = ("residual", "grouped", "attention", "transposed")  # those that train or score in many rounds

SPECIAL: dict[str, dict[str, Any]] = {
    "synflow": {"networks": FEW, "options": {"rounds": 10}},
    "force": {"networks": FEW, "options": {"rounds": 5}},
    "iter_snip": {"networks": FEW, "options": {"rounds": 5}},
    # Three trainings of 12 steps: one is interrupted in each, and one at the end of the first.
    "lottery": {"networks": FEW, "options": {"rounds": 2, "rewind": 0.1}, "stops": (1, 5, 12, 17, 35)},
}

for _name in sparse_methods.names():
    globals()[f"Test_{_name}"] = type(
        f"Test_{_name}", (SparseContract,), {"method": _name, **SPECIAL.get(_name, {})}
    )
