"""Rule-based mapping: a pattern for every layer without any training."""

from __future__ import annotations

from collections.abc import Mapping as Table
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

from torch import Tensor

from billhook.errors import InputError
from billhook.graph.patterns import Pattern
from billhook.graph.weights import WeightLayer
from billhook.sparse.allocation import require_sparsity
from billhook.sparse.mapping.candidates import (
    SIZES,
    TASKS,
    Size,
    block_patterns,
    coarsest,
    kernel_pattern,
    reach,
)
from billhook.sparse.mapping.latency_table import LatencyModel, LatencyTable
from billhook.sparse.mapping.mapping import Mapping
from billhook.sparse.mapping.sharing import GRID, Option, descend, options_of

NEGLIGIBLE = 0.002  # of the modelled latency
WORTH = 0.95  # of the dense layer's time: what zeros must save, for they cost accuracy


@dataclass(frozen=True)
class Rules:
    """What decides about a layer, besides the layer.

    Attributes:
        table: What a layer costs.
        task: "easy" or "hard".
        beta: How much slower than coarse structured pruning fine-grained pruning may be.
        negligible: Share of the network's time below which a layer stays dense.
        sizes: Of blocks, (outputs, inputs).
    """

    table: LatencyModel
    task: str = "easy"
    beta: float = 0.2
    negligible: float = NEGLIGIBLE
    sizes: Sequence[Size] = SIZES

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise InputError(f"task={self.task!r}: expected one of {', '.join(TASKS)}")
        for name, value in (("beta", self.beta), ("negligible", self.negligible)):
            if not isfinite(value) or value < 0:
                raise InputError(f"{name}={value!r} must be a number of at least 0")

    def legal(self, layer: WeightLayer) -> tuple[Pattern, ...]:
        """Return what the rules allow for a layer: kernel patterns only for hard tasks."""
        blocks = block_patterns(layer, sizes=self.sizes)
        kernel = kernel_pattern(layer) if self.task == "hard" else None
        return blocks if kernel is None else (kernel, *blocks)


def map_by_rules(
    layers: Sequence[WeightLayer],
    *,
    sparsity: float | None = None,
    latency: float | None = None,
    energies: Table[str, Tensor] | None = None,
    table: LatencyModel | None = None,
    task: str = "easy",
    beta: float = 0.2,
    negligible: float = NEGLIGIBLE,
    sizes: Sequence[Size] = SIZES,
    loss: str = "lamp",
    grid: Sequence[float] = GRID,
) -> Mapping:
    """Return a pattern, or dense, for every layer, by rules and a latency model: no training.

    With `sparsity`, the same in all layers: depthwise convolutions stay dense; 3×3 convolutions get kernel
    patterns if the task is hard (ImageNet) and blocks if it is easy (CIFAR); all other convolutions get
    blocks that are punched through, linear layers blocks. The block is the smallest whose modelled latency is
    at most (1 + beta) times that of columns, pruned over all outputs at the same sparsity.

    With `latency` and `energies` instead: every layer gets the pattern and the sparsity which, all together,
    lose the least energy while the modelled latency of the network meets the bound (see `share_out`); what a
    layer may get is the same as above, all sizes of blocks. The result holds the sparsities too.

    Args:
        layers: Of the network, as `Graph.weights` gives them.
        sparsity: Fraction of zeros in every layer that gets a pattern, from 0 to below 1.
        latency: Upper bound in seconds on the modelled latency of all layers.
        energies: What each weight is worth (w²), [outputs, inputs, positions] by tensor; with `latency`.
        table: What a layer costs; None: the default table.
        task: "easy" or "hard".
        beta: How much slower than coarse structured pruning a pattern may be; with `sparsity`.
        negligible: A layer with less than this share of the dense network's time stays dense.
        sizes: Of blocks, (outputs, inputs); (0, 1) spans all outputs.
        loss: See `share_out`.
        grid: Sparsities to try, with `latency`.
    Raises:
        InputError: for a value out of range, or unless exactly one of `sparsity` and `latency` is given.
        BudgetError: if the latency cannot be met; names what can be.
    References:
        Gong et al., "Automatic Mapping of the Best-Suited DNN Pruning Schemes for Real-Time Mobile
        Acceleration", TODAES 2022, arXiv:2111.11581 (the rules; thresholds are reconstructed).
    Differs from the source:
        "Coarse structured" is columns over all outputs, in the same kernels: whole filters, which dense
        kernels run, would be faster than any block here, and no size would ever pass. A layer also stays
        dense if its pattern would not be 5 % faster than the best dense kernel at this sparsity, or if its
        share of the network's time is negligible. Kernel patterns give way to blocks where they do not pay.
        The mapping under a latency bound is ours.
    """
    rules = Rules(LatencyTable.default() if table is None else table, task, beta, negligible, tuple(sizes))
    if (sparsity is None) == (latency is None):
        raise InputError(
            "give either sparsity, for the same in all layers, or latency, to have it shared out"
        )
    if sparsity is not None:
        require_sparsity(sparsity, "sparsity")
    elif energies is None:
        raise InputError("latency needs energies: what each weight is worth, by tensor")
    dense = {layer.tensor: rules.table.latency(layer, None, 0.0) for layer in layers}
    total = sum(dense.values())
    kept = {la.tensor: _kept_dense(la, dense[la.tensor] / total, rules) for la in layers}
    if sparsity is not None:
        decided = [kept[la.tensor] or _by_rule(la, sparsity, dense[la.tensor], rules) for la in layers]
    else:
        curves = [
            options_of(
                *(la, energies or {}, () if kept[la.tensor] else rules.legal(la), rules.table),
                loss=loss,
                grid=grid,
            )
            for la in layers
        ]
        taken = descend(curves, float(latency or 0))
        decided = [
            kept[la.tensor] or _as_taken(o, dense[la.tensor]) for la, o in zip(layers, taken, strict=True)
        ]
    named = {la.tensor: d for la, d in zip(layers, decided, strict=True)}
    return Mapping(
        {tensor: d.pattern for tensor, d in named.items()},
        {tensor: d.reason for tensor, d in named.items()},
        {tensor: d.sparsity for tensor, d in named.items() if d.pattern is not None},
    )


@dataclass(frozen=True)
class _Decision:
    pattern: Pattern | None
    reason: str
    sparsity: float = 0.0


def _kept_dense(layer: WeightLayer, share: float, rules: Rules) -> _Decision | None:
    if layer.depthwise:
        return _Decision(None, "depthwise: little to compute, and sensitive")
    if share < rules.negligible:
        return _Decision(None, f"takes {share:.2%} of the time: nothing is won")
    if not rules.legal(layer):
        return _Decision(None, "no pattern fits its shape")
    return None


def _by_rule(layer: WeightLayer, sparsity: float, dense: float, rules: Rules) -> _Decision:
    best = inf
    for decision, seconds in (_kernel(layer, sparsity, rules), _block(layer, sparsity, rules)):
        if decision is not None and seconds <= WORTH * dense:
            return decision
        best = min(best, seconds)
    if best == inf:
        return _Decision(None, f"no pattern that fits can reach {sparsity:.0%}")
    return _Decision(None, f"{sparsity:.0%} zeros do not pay: {best / dense:.2f} times the dense time")


def _kernel(layer: WeightLayer, sparsity: float, rules: Rules) -> tuple[_Decision | None, float]:
    pattern = kernel_pattern(layer) if rules.task == "hard" else None
    if pattern is None:
        return None, inf
    low, high = reach(pattern, layer.view)
    given = min(max(sparsity, low), high)
    seconds = rules.table.latency(layer, pattern, given)
    return _Decision(pattern, "3×3 on a hard task: kernel patterns keep accuracy", given), seconds


def _block(layer: WeightLayer, sparsity: float, rules: Rules) -> tuple[_Decision | None, float]:
    """Return the smallest block that is nearly as fast as columns; the fastest if none is."""
    offered = block_patterns(layer, sizes=rules.sizes)
    offered = tuple(p for p in offered if reach(p, layer.view)[1] >= sparsity)
    if not offered:
        return None, inf
    times = [rules.table.latency(layer, p, sparsity) for p in offered]
    coarse = rules.table.latency(layer, coarsest(layer), sparsity)
    for pattern, seconds in zip(offered, times, strict=True):
        if seconds <= (1 + rules.beta) * coarse:
            reason = f"smallest block within {rules.beta:.0%} of the time of columns"
            return _Decision(pattern, reason, sparsity), seconds
    fastest = min(range(len(offered)), key=times.__getitem__)
    reason = f"fastest block; none is within {rules.beta:.0%} of the time of columns"
    return _Decision(offered[fastest], reason, sparsity), times[fastest]


def _as_taken(option: Option, dense: float) -> _Decision:
    if option.pattern is None:
        return _Decision(None, "dense: other layers lose less for the time they save")
    reason = f"{option.seconds / dense:.2f} times the dense time, loss {option.loss:.3g}"
    return _Decision(option.pattern, reason, option.sparsity)
