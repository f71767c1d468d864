"""Every method and every criterion, as a method, keeps the contract."""

from __future__ import annotations

from typing import Any

from billhook.criteria import criteria
from billhook.graph import Scope
from billhook.methods import names
from tests.contract.method_contract import MethodContract

FEW = ("plain", "residual", "attention")  # criteria differ in scores only; one of them sees every network

SPECIAL: dict[str, dict[str, Any]] = {
    # Needs a batch norm in every group.
    "bn_scale": {"networks": ("residual",)},
    "network_slimming": {"networks": ("residual",)},
    "l2": {"networks": MethodContract.networks},
    # One batch is the default, and what comes after it is not asked for.
    "grasp": {"options": {"batches": 2}},
    "snip": {"options": {"batches": 2}},
}


# It decides nothing: what it is given it keeps, see tests/unit/methods/test_given.py.
NOT_DECIDING = {"given"}


def _contract(name: str) -> type[MethodContract]:
    settings = {"networks": FEW} if name in criteria.names() else {}
    return type(f"Test_{name}", (MethodContract,), {"method": name, **settings, **SPECIAL.get(name, {})})


for _name in sorted({*names()} - NOT_DECIDING):
    globals()[f"Test_{_name}"] = _contract(_name)


class TestBnScaleInScope(MethodContract):
    """Where only some groups can be judged, scope makes the criterion usable."""

    method = "bn_scale"
    networks = ("plain",)
    scope = Scope(exclude=("conv3",))
    network = "plain"
