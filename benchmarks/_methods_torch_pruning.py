"""Torch-Pruning beside billhook: the same trained network, budget and training; only the pruner is another.

The only place that knows Torch-Pruning, which is installed in an environment of the benchmark's own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

IMPORTANCES = {
    "group norm": "GroupMagnitudeImportance",
    "fpgm": "FPGMImportance",
    "taylor": "GroupTaylorImportance",
    "bn_scale": "BNScaleImportance",
}
ROUND_TO = 4


def smaller(
    model: nn.Module, example: Tensor, importance: str, macs: float, batches: list[tuple[Tensor, Tensor]]
) -> nn.Module:
    """Return the widest network within `macs` (relative) that Torch-Pruning's own global pruning gives.

    It takes a ratio of channels, not a budget, so the ratio is found by bisection, each time on a copy.
    """
    import torch_pruning as tp

    whole, _ = tp.utils.count_ops_and_params(model, example)
    low, high, best = 0.0, 0.95, None
    for _ in range(12):
        ratio = (low + high) / 2
        candidate = _pruned(tp, model, example, importance, ratio, batches)
        found, _ = tp.utils.count_ops_and_params(candidate, example)
        if found <= macs * whole:
            high, best = ratio, candidate
        else:
            low = ratio
    if best is None:
        raise RuntimeError(f"Torch-Pruning does not reach {macs:.0%} of the MACs")
    return best.eval()


def _pruned(
    tp: Any,
    model: nn.Module,
    example: Tensor,
    importance: str,
    ratio: float,
    batches: list[tuple[Tensor, Tensor]],
) -> nn.Module:
    copied, pruner = _traced(tp, model, example, importance, ratio)
    if importance == "taylor":
        for inputs, targets in batches:
            nn.functional.cross_entropy(copied(inputs), targets).backward()
    pruner.step()
    copied.zero_grad()
    return copied


def _traced(
    tp: Any, model: nn.Module, example: Tensor, importance: str, ratio: float
) -> tuple[nn.Module, Any]:
    copied = copy.deepcopy(model).eval()
    head = [m for m in copied.modules() if isinstance(m, nn.Linear)][-1]
    return copied, tp.pruner.BasePruner(
        copied,
        example,
        importance=getattr(tp.importance, IMPORTANCES[importance])(),
        pruning_ratio=ratio,
        max_pruning_ratio=0.9,
        global_pruning=True,
        ignored_layers=[head],
        round_to=ROUND_TO,
    )


def one_prune(model: nn.Module, example: Tensor) -> tuple[Callable[[], Any], Callable[[Any], object]]:
    """Return two steps: what copies and traces, and what then prunes half of the channels and counts."""
    import torch_pruning as tp

    def trace() -> Any:
        return _traced(tp, model, example, "group norm", 0.5)

    def prune(traced: Any) -> object:
        copied, pruner = traced
        pruner.step()
        return tp.utils.count_ops_and_params(copied, example)

    return trace, prune
