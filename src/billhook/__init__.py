"""billhook makes trained PyTorch networks small and fast enough for edge devices.

    groups = billhook.groups(model, example_inputs)
    plan = billhook.prune(model, example_inputs, method="l2", budget=billhook.Budget(macs=0.5))
    small = billhook.apply(model, plan)

Names are loaded when they are first used: `import billhook` and `billhook --help` do not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from billhook.allocate.budget import Budget as Budget
    from billhook.compile.int8.calibration import Calibration as Calibration
    from billhook.deploy import export as export
    from billhook.errors import BillhookError as BillhookError
    from billhook.errors import BudgetError as BudgetError
    from billhook.fuse.options import Fusion as Fusion
    from billhook.graph import ChannelGroup as ChannelGroup
    from billhook.graph import Groups as Groups
    from billhook.graph import Plan as Plan
    from billhook.graph import Scope as Scope
    from billhook.graph import apply as apply
    from billhook.graph import apply_ as apply_
    from billhook.graph import capture as capture
    from billhook.graph import cost as cost
    from billhook.graph import groups as groups
    from billhook.graph import load as load
    from billhook.graph import save as save
    from billhook.graph import silence as silence
    from billhook.graph import verify as verify
    from billhook.measure import latency as latency
    from billhook.methods import MethodCallback as MethodCallback
    from billhook.methods import Outcome as Outcome
    from billhook.methods import prune as prune
    from billhook.methods import pruning_callback as pruning_callback
    from billhook.methods import shrink as shrink
    from billhook.methods.sparse import Sparsified as Sparsified
    from billhook.methods.sparse import sparsify as sparsify
    from billhook.methods.sparse import sparsifying_callback as sparsifying_callback
    from billhook.results import Check as Check
    from billhook.results import Cost as Cost
    from billhook.results import Measurement as Measurement

__version__ = "0.1.0"

_HOMES = {
    "BillhookError": "billhook.errors",
    "Budget": "billhook.allocate.budget",
    "BudgetError": "billhook.errors",
    "Calibration": "billhook.compile.int8.calibration",
    "ChannelGroup": "billhook.graph",
    "Check": "billhook.results",
    "Cost": "billhook.results",
    "Fusion": "billhook.fuse.options",
    "Groups": "billhook.graph",
    "Measurement": "billhook.results",
    "MethodCallback": "billhook.methods",
    "Outcome": "billhook.methods",
    "Plan": "billhook.graph",
    "Scope": "billhook.graph",
    "Sparsified": "billhook.methods.sparse",
    "apply": "billhook.graph",
    "apply_": "billhook.graph",
    "capture": "billhook.graph",
    "cost": "billhook.graph",
    "export": "billhook.deploy",
    "groups": "billhook.graph",
    "latency": "billhook.measure",
    "load": "billhook.graph",
    "prune": "billhook.methods",
    "pruning_callback": "billhook.methods",
    "save": "billhook.graph",
    "shrink": "billhook.methods",
    "silence": "billhook.graph",
    "sparsify": "billhook.methods.sparse",
    "sparsifying_callback": "billhook.methods.sparse",
    "verify": "billhook.graph",
}

__all__ = [*_HOMES, "__version__"]


if not TYPE_CHECKING:  # type checkers read the imports above, so that a misspelt name is an error for them

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'billhook' has no attribute {name!r}")
        value: object = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value  # the next look-up is an ordinary one
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
