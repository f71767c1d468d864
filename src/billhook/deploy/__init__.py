"""From an `nn.Module` to a file that a runtime runs: lowering, check against PyTorch, timing of plans.

Names are resolved when used: the timing process imports a backend from here and must not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from billhook.deploy.compiled import compile_for as compile_for
    from billhook.deploy.exporter import export as export
    from billhook.deploy.lowering import Lowered as Lowered
    from billhook.deploy.lowering import lower_by_cost as lower_by_cost
    from billhook.deploy.onnx import OnnxExport as OnnxExport
    from billhook.deploy.onnx import export_onnx as export_onnx
    from billhook.deploy.parity import Parity as Parity
    from billhook.deploy.parity import check_parity as check_parity
    from billhook.deploy.plan_latency import PlanLatency as PlanLatency

_HOME = {
    "Lowered": "lowering",
    "OnnxExport": "onnx",
    "Parity": "parity",
    "PlanLatency": "plan_latency",
    "check_parity": "parity",
    "compile_for": "compiled",
    "export": "exporter",
    "export_onnx": "onnx",
    "lower_by_cost": "lowering",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"billhook.deploy.{_HOME[name]}"), name)
