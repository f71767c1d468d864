"""`Graph`: a captured network with its groups and cost formulas."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from billhook.errors import InputError, NameNotFoundError, PlanError
from billhook.graph import inputs as example
from billhook.graph.branches import Branch, completed, find_branches, gone, left_with_nothing, may_be_empty
from billhook.graph.capture import Program, capture_program
from billhook.graph.constants import Kept
from billhook.graph.cost import CostModel
from billhook.graph.fusions import fused
from billhook.graph.groups import Groups
from billhook.graph.inputs import Call, ExampleInputs
from billhook.graph.layers import LayeredNetwork
from billhook.graph.partition import ONE_UNIT, Partition, partition
from billhook.graph.plan import Keep, Plan
from billhook.graph.propagate import propagate
from billhook.graph.rules import Flow
from billhook.graph.rules._base import Mixing
from billhook.graph.weights import WeightLayer, weight_layers
from billhook.results import Cost


@dataclass(frozen=True, eq=False)
class Graph:
    """What billhook knows about a network: operators, labels, groups, costs. It holds no weights.

    Attributes:
        program: The captured operators.
        flow: Labels of every value.
        partition: Groups, and the group and unit of every label.
        call: The example inputs as (args, kwargs).
        structure: Token of the module's structure at capture, to notice a changed model.
        fusions: Rewrites that made the network, in order; see `Plan.fusions`.
        variants: The same network captured otherwise ("free batch"), made when first needed.
    """

    program: Program
    flow: Flow
    partition: Partition
    call: Call
    structure: str
    fusions: tuple[Mapping[str, Any], ...] = ()
    variants: dict[str, Graph] = field(default_factory=dict)

    @property
    def groups(self) -> Groups:
        """All channel groups, in the order in which their channels are made."""
        return self.partition.groups

    @property
    def mixing(self) -> Mixing:
        """Whether channels through mixing operators may leave."""
        return self.flow.mixing

    @property
    def example_inputs(self) -> tuple[Any, ...] | dict[str, Any]:
        """The inputs the graph was captured with."""
        return self.call[1] or self.call[0]

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """JSON-able description of the example inputs."""
        return example.describe(self.call)

    @cached_property
    def costs(self) -> CostModel:
        """Cost formulas."""
        return CostModel(self.flow, self.partition, self.branches)

    @cached_property
    def weights(self) -> tuple[WeightLayer, ...]:
        """Convolutions and linear layers with a weight of their own, in the order of the forward pass."""
        return weight_layers(self.program)

    @cached_property
    def branches(self) -> tuple[Branch, ...]:
        """Residual branches that may leave whole, in the order of their additions."""
        return find_branches(self.flow, self.partition)

    @cached_property
    def branch_of(self) -> Mapping[str, Branch]:
        """The innermost branch that holds a group, by group id; keeping nothing of the group removes it."""
        return {group: branch for branch in self.branches for group in branch.own}

    @cached_property
    def copies(self) -> frozenset[str]:
        """Ids of groups of shortcuts' copies (see `billhook.fuse.ChannelCopy`), of which none need stay."""
        return frozenset(g.id for g in self.groups if g.prunable and may_be_empty(self.flow, g))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of names and shapes of all tensors and of the group table; weights do not count."""
        table = [
            (g.id, g.size, g.prunable, [(m.tensor, m.axis, m.width) for m in g.members]) for g in self.groups
        ]
        shapes = sorted((n, list(s)) for n, s in self.program.shapes.items())
        text = json.dumps([shapes, table, self.mixing], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def keep_list(self, plan: Plan) -> list[Keep | None]:
        """Return the keep array of every group in order, None where everything stays.

        Raises:
            PlanError: if the plan was made for another network or touches what is frozen.
        """
        if plan.fingerprint != self.fingerprint:
            raise PlanError(
                f"the plan was made for another network (fingerprint {plan.fingerprint[:12]}, this one has "
                f"{self.fingerprint[:12]}); make a new plan, or build the model as it was when the plan was "
                "made"
            )
        for name, keep in plan.keep.items():
            check_keep(self, name, keep)
        whole = self._completed(plan.keep)
        return [None if (k := whole.get(g.id)) is None or k.all() else k for g in self.groups]

    def kept(self, plan: Plan) -> Kept:
        """Return which indices of every dimension stay under `plan`; raises what `keep_list` does."""
        return Kept(self.flow, self.partition, self.keep_list(plan), self.dropped(plan))

    def dropped(self, plan: Plan) -> tuple[Branch, ...]:
        """Return the branches that are gone under `plan`."""
        return gone(self.branches, self._completed(plan.keep))

    def _completed(self, keep: Mapping[str, Keep]) -> Mapping[str, Keep]:
        if all(k.any() for k in keep.values()):
            return keep
        empty = left_with_nothing(self.flow, self.partition, self.branches, keep)
        if empty is not None:
            raise PlanError(
                f"the plan removes the branch {empty.id!r} and all copies of its shortcut; one of them must "
                "stay, or nothing reaches the layers behind"
            )
        return completed(self.branches, keep, {g.id: g.size for g in self.groups})


def capture(model: nn.Module, example_inputs: ExampleInputs, *, mixing: Mixing = "freeze") -> Graph:
    """Return the graph of `model`: its operators, channel groups and cost formulas.

    The model is captured in eval mode and left as it was. Takes about a second for ResNet-50.

    Args:
        model: Any module that `torch.export` can capture.
        example_inputs: One batch: a tensor, a tuple of arguments or a dict of keyword arguments.
        mixing: "freeze" protects channels that pass through layer norm and other operators which mix
            channels; "allow" lets them leave, though that is no longer the same as silencing them.
    Raises:
        CaptureError: if the network cannot be captured; names the operator and the line.
        InputError: for example inputs without a tensor or an unknown `mixing`.
    """
    if mixing not in ("freeze", "allow"):
        raise InputError(f"mixing={mixing!r}: expected 'freeze' or 'allow'")
    return capture_call(model, example.as_call(example_inputs), mixing)


def capture_call(model: nn.Module, call: Call, mixing: Mixing, *, dynamic_batch: bool = False) -> Graph:
    """Return the graph of `model` called with `call`; see `capture`."""
    program = capture_program(model, call, dynamic_batch=dynamic_batch)
    flow = propagate(program, mixing)
    parts = partition(flow)
    if flow.tied_parts and any(g.frozen is not None and g.frozen.text == ONE_UNIT for g in parts.groups):
        # Chunks and shuffles in turns (ShuffleNet) tie everything to everything. Parts of unequal size
        # give the freedom back; the smaller network is then the exported graph, see `apply`.
        free = propagate(program, mixing, tie_parts=False)
        loose = partition(free)
        if _units(loose) > _units(parts):
            flow, parts = free, loose
    fusions = model.fusions if isinstance(model, LayeredNetwork) else ()
    return Graph(program, flow, parts, call, structure_of(model), fusions)


def groups(model: nn.Module, example_inputs: ExampleInputs, *, mixing: Mixing = "freeze") -> Groups:
    """Return what can leave `model` together, and what is frozen and why; see `capture`."""
    return capture(model, example_inputs, mixing=mixing).groups


def cost(model: nn.Module, example_inputs: ExampleInputs, plan: Plan | None = None) -> Cost:
    """Return MACs, parameters, bytes and peak activation memory of `model`, under `plan` if given.

    Computed from shapes; the smaller network is not built.
    """
    if plan is not None:
        model = fused(model, plan)
    graph = capture(model, example_inputs, mixing=mixing_of(plan))
    if plan is not None:
        graph.keep_list(plan)
    return graph.costs.cost(plan)


def make_plan(graph: Graph, keep: Mapping[str, npt.ArrayLike], **made_by: Any) -> Plan:
    """Return the plan that keeps these units; groups that are not named keep everything.

    A group of which nothing is kept takes its residual branch with it (see `Graph.branches`): nothing is
    kept of any group in that branch.

    Raises:
        PlanError: for an unknown or frozen group, a wrong length, or if nothing is kept of a group that lives
            in no branch.
    """
    arrays = {name: np.asarray(k, dtype=bool) for name, k in keep.items()}
    for name, array in arrays.items():
        check_keep(graph, name, array)
    plan = Plan(
        graph._completed(arrays), graph.fingerprint, graph.inputs, graph.mixing, made_by, graph.fusions
    )
    return plan.attached(graph)


def graph_of(model: nn.Module, plan: Plan) -> Graph:
    """Return the graph `plan` belongs to: the one it was made from if `model` still fits, else a new one.

    `model` has the fusions of the plan already.
    """
    graph = plan.graph
    if isinstance(graph, Graph) and graph.structure == structure_of(model):
        return graph
    return capture_call(model, example.synthesize(plan.inputs), mixing_of(plan))


def structure_of(model: nn.Module) -> str:
    """Return a token that changes when modules, shapes or plain attributes of `model` change."""
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        plain = sorted(
            (k, repr(v))
            for k, v in vars(module).items()
            if k != "training" and isinstance(v, (bool, int, float, str, tuple, list)) and len(repr(v)) < 400
        )
        shapes = [(k, tuple(v.shape)) for k, v in module._parameters.items() if v is not None]
        shapes += [(k, tuple(v.shape)) for k, v in module._buffers.items() if v is not None]
        digest.update(repr((name, type(module).__qualname__, plain, shapes)).encode())
    return digest.hexdigest()


def check_keep(graph: Graph, name: str, keep: Keep) -> None:
    """Raise `PlanError` unless `keep` can be applied to group `name`."""
    try:
        group = graph.groups[name]
    except NameNotFoundError as e:
        raise PlanError(f"the plan names a group that this network does not have: {e}") from None
    if keep.shape != (group.size,):
        raise PlanError(
            f"group {name!r} has {group.size} units, the plan speaks of {keep.shape[0] if keep.ndim else 0}"
        )
    if keep.all():
        return
    if group.frozen is not None:
        raise PlanError(f"group {name!r} is frozen: {group.frozen}; no unit of it can be removed")
    if not keep.any() and name not in graph.branch_of and name not in graph.copies:
        raise PlanError(
            f"the plan removes all {group.size} units of group {name!r}; at least one must stay, because the "
            "group is not inside a residual branch that could leave whole"
        )


def _units(parts: Partition) -> int:
    return sum(g.size for g in parts.groups.prunable)


def mixing_of(plan: Plan | None) -> Mixing:
    """Return the mode of capture that a plan needs."""
    return "allow" if plan is not None and plan.mixing == "allow" else "freeze"
