"""From a recipe to a plan, without touching anything: what `--dry-run` shows and what a run carries out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from torch import nn

from billhook.allocate.budget import Budget
from billhook.errors import InputError
from billhook.fuse import ChannelCopy
from billhook.graph import Graph, Groups, Plan, Scope, make_plan
from billhook.methods import Outcome, methods, shrink
from billhook.methods.sparse import Sparsified
from billhook.pipeline.sparsifying import sparse_trains, sparsify_network, weight_rows
from billhook.pipeline.subject import Subject
from billhook.results import Cost
from billhook.run_record import LayerChange
from billhook.units import format_count


@dataclass(frozen=True)
class Decision:
    """A plan and what it means.

    Attributes:
        outcome: The plan of channels, and the network it is for: the original, or one with the weights that
            the method has given it.
        before, after: Costs of the original and of the smaller network.
        groups: The group table.
        layers: Output channels and weights per layer.
        sparse: Zeros in the weights that are left, where a preview has decided them too.
    """

    outcome: Outcome
    before: Cost
    after: Cost
    groups: Groups
    layers: tuple[LayerChange, ...]
    sparse: Sparsified | None = None

    @property
    def plan(self) -> Plan:
        """What stays."""
        return self.outcome.plan if self.sparse is None else self.sparse.plan

    @property
    def weights(self) -> list[dict[str, Any]]:
        """Return one row for each weight that has a pattern, as plain data."""
        return weight_rows(self.plan.patterns)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "groups": self.group_rows(),
            **({"weights": self.weights} if self.sparse is not None else {}),
            "plan": self.plan.to_dict(),
        }

    def group_rows(self) -> list[dict[str, Any]]:
        """Return the group table as plain data, with the number of units that stay."""
        kept = self.plan.counts
        return [{**g.to_dict(), "kept": kept.get(g.id, g.size)} for g in self.groups]


def preview_plan(subject: Subject) -> Decision:
    """Return what a run would decide; nothing is written, changed or trained.

    Raises:
        InputError: if the method decides while it trains.
    """
    recipe = subject.recipe
    if recipe.prunes and trains(recipe.prune.method):
        raise _decides_later("method", recipe.prune.method, "l2")
    if recipe.sparse.wanted and sparse_trains(recipe.sparse.method):
        raise _decides_later("sparse method", recipe.sparse.method, "magnitude")
    decision = decide_plan(subject, None)
    if not recipe.sparse.wanted:
        return decision
    sparse = sparsify_network(subject, decision.outcome.model, decision.plan, None)
    graph = subject.prunable_graph
    return replace(
        decision,
        after=graph.costs.cost(sparse.plan),
        layers=layer_changes(subject.prunable, graph, sparse.plan),
        sparse=sparse,
    )


def _decides_later(kind: str, method: str, other: str) -> InputError:
    return InputError(
        f"{kind} {method!r} decides while it trains, so a dry run cannot show its plan; run it, or preview a "
        f"method that only looks at the network, such as {other!r}"
    )


def decide_plan(subject: Subject, checkpoints: Path | None, *, bars: bool = False) -> Decision:
    """Return a plan that meets the recipe's budget, and the weights it is for; all channels stay without one.

    A bound on latency exports and measures candidates, in a temporary folder. A method that trains continues
    at the step of its last checkpoint.

    Args:
        subject: The network and its data.
        checkpoints: Where a method that trains keeps what it needs to go on.
        bars: Show progress bars while it trains.
    """
    graph, before = subject.prunable_graph, subject.graph.costs.cost(None)
    if subject.recipe.prunes:
        outcome = _shrunk(subject, budget_of(subject), checkpoints, bars=bars)
    else:
        outcome = Outcome(make_plan(graph, {}), subject.prunable)
    return Decision(
        outcome=outcome,
        before=before,
        after=graph.costs.cost(outcome.plan),
        groups=graph.groups,
        layers=layer_changes(subject.prunable, graph, outcome.plan),
    )


def budget_of(subject: Subject) -> Budget:
    """Return the recipe's bounds for what is pruned; without any, for a given plan, one that always holds."""
    bounds, pruned = subject.recipe.budget, subject.prunable_graph.costs.cost(None)
    if bounds is None:
        return Budget(macs=float(max(2, pruned.macs)))
    return bounds.to_budget().of(subject.graph.costs.cost(None), pruned)


def _shrunk(subject: Subject, budget: Budget, checkpoints: Path | None, *, bars: bool) -> Outcome:
    recipe, wanted = subject.recipe, subject.recipe.prune
    training = trains(wanted.method)
    outcome = shrink(
        subject.prunable,
        subject.example_inputs,
        budget=budget,
        method=wanted.method,
        options=wanted.options,
        allocator=wanted.allocator,
        scope=Scope(wanted.include, wanted.exclude),
        data=subject.training() if training else subject.calibration(),
        validation=subject.validation(),
        round_to="auto" if wanted.round_to is None else wanted.round_to,
        backend=recipe.export.backend,
        threads=recipe.measure.threads,
        mixing=wanted.mixing,
        seed=recipe.seed,
        verify=False,  # the next stage does, and keeps the outcome
        training=wanted.training.to_config(recipe.seed),
        checkpoint_dir=checkpoints if training else None,
        resume=training and checkpoints is not None,
        progress=bars,
        graph=subject.prunable_graph,
    )
    # Single weights are a stage of their own, which a plan that was given has told what to do.
    return replace(outcome, plan=replace(outcome.plan, patterns={}))


def trains(method: str) -> bool:
    """Return whether a method trains while it decides."""
    return method in methods.names() and methods.info(method).trains


def describe(decision: Decision) -> str:
    """Return e.g. "MACs 31 M → 12 M, parameters 272 k → 90 k"."""
    before, after = decision.before, decision.after
    return (
        f"MACs {format_count(before.macs)} → {format_count(after.macs)}, "
        f"parameters {format_count(before.params)} → {format_count(after.params)}"
    )


def layer_changes(model: nn.Module, graph: Graph, plan: Plan) -> tuple[LayerChange, ...]:
    """Return channels and weights of every layer with a weight matrix, and of copies, in processing order."""
    removed: dict[tuple[str, int], int] = {}
    for group in graph.groups:
        units = plan.removed.get(group.id, 0)
        for member in group.members:
            if member.role != "in":
                key = member.tensor, member.axis
                removed[key] = removed.get(key, 0) + units * member.width
    gone = {tensor for branch in graph.dropped(plan) for tensor in branch.tensors}
    masks = graph.kept(plan)
    changes = {}
    for name, module in model.named_modules():
        leaf, own = ("weight", getattr(module, "weight", None))
        if isinstance(module, ChannelCopy) and module.magnitude is not None:
            leaf, own = "index", module.index
        elif not isinstance(own, nn.Parameter) or own.dim() < 2:
            continue
        axis = 1 if getattr(module, "transposed", False) else 0
        tensor = f"{name}.{leaf}" if name else leaf
        before = int(own.shape[axis])
        after = 0 if tensor in gone else before - removed.get((tensor, axis), 0)
        left = (
            own.shape[i] if m is None else int(m.sum()) for i, m in enumerate(masks.tensor(tensor, own.dim()))
        )
        structure = plan.patterns.get(tensor)
        changes[tensor] = LayerChange(
            layer=name or "(model)",
            kind=type(module).__name__.lower(),
            before=before,
            after=after,
            weights=own.numel(),
            kept=0 if tensor in gone else prod(left) if structure is None else structure.nonzeros,
            pattern="" if structure is None else str(structure.pattern),
        )
    order = {m.tensor: i for i, g in enumerate(graph.groups) for m in g.members if m.role != "in"}
    return tuple(changes[tensor] for tensor in sorted(changes, key=lambda t: order.get(t, len(order))))
