"""Equivalent rewrites of a network as data: what a pass is, and how a plan's fusions are made again."""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from billhook.errors import CaptureError, PlanError
from billhook.graph.agreement import agree, flat_outputs
from billhook.graph.capture import Program, capture_program, eval_mode
from billhook.graph.exported import ExportedNetwork
from billhook.graph.inputs import Call, repeat_batch, synthesize, tensors
from billhook.graph.layering import layered
from billhook.graph.layers import LayeredNetwork, observe
from billhook.graph.plan import Plan
from billhook.registry import Registry

log = logging.getLogger("billhook")

Kind = Literal["widen", "fold"]


@dataclass(frozen=True)
class Site:
    """A place where a pass can rewrite a network.

    Attributes:
        at: Name of the layer or block.
        operator: What is rewritten; one of the names in `Pass.operators`.
        settings: Further choices, plain values, that make the same rewrite again.
        match: What the pass has found there; good until the graph changes, and no part of what the place is.
    """

    at: str
    operator: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    match: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Refusal:
    """A place that looks like a pass's, where its precondition could not be proved.

    Attributes:
        at: Name of the layer or block.
        operator: As in `Site`.
        why: What is missing, in one sentence.
    """

    at: str
    operator: str
    why: str


class Pass(ABC):
    """One kind of exact rewrite.

    Attributes:
        kind: "widen" (before pruning: what can leave becomes more; the network stays trainable as it was) or
            "fold" (after training: fewer operators, batch norms vanish).
        operators: What it rewrites, as named in `Fusion.operators`.
    """

    kind: ClassVar[Kind]
    operators: ClassVar[tuple[str, ...]]

    @abstractmethod
    def find(self, network: LayeredNetwork, settings: Mapping[str, Any]) -> Iterator[Site | Refusal]:
        """Yield all places, in the order of the graph, whose preconditions hold, and those where they do not.

        Every node of the graph knows the shape of its value as `node.meta["val"]`. What is yielded is found
        anew after each rewrite, so a place must not be yielded again once it is rewritten.
        """

    @abstractmethod
    def rewrite(self, network: LayeredNetwork, site: Site) -> None:
        """Rewrite the graph in place at a `site` that `find` has yielded; new nodes get shapes, too."""


passes: Registry[Pass] = Registry("fusion pass", "billhook.fuse.passes")
"""Passes by name; found when asked for, so that nothing here imports `fuse`."""


def as_record(name: str, site: Site) -> dict[str, Any]:
    """Return a rewrite as an entry of `Plan.fusions`."""
    return {"pass": name, "at": site.at, "operator": site.operator, **site.settings}


def rewrite_at(network: LayeredNetwork, name: str, site: Site) -> None:
    """Carry out one rewrite in the graph and note it in the network; `tidy` makes it take effect."""
    passes.get(name).rewrite(network, site)
    network.graph.eliminate_dead_code()
    network.record(as_record(name, site))


def tidy(network: LayeredNetwork) -> None:
    """Drop operators and layers that nobody uses, and let forward follow the graph."""
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.recompile()


def fused(model: nn.Module, plan: Plan) -> nn.Module:
    """Return `model` with the fusions of `plan`; the model itself if there are none or it has them already.

    Raises:
        PlanError: if a fusion does not fit the network.
    """
    wanted = tuple(plan.fusions)
    if not wanted or (isinstance(model, LayeredNetwork) and model.fusions == wanted):
        return model
    call = synthesize(plan.inputs)
    network = as_layers(model, call)
    begun = network.fusions == wanted[: len(network.fusions)]
    previous: object = None
    for entry in wanted[len(network.fusions) :] if begun else wanted:
        if (name := _pass_of(entry)) != previous:  # a pass knows the shapes of what it makes itself
            with eval_mode(network):  # looking must not move statistics
                observe(network, call)
        _repeat(network, name, entry)
        previous = name
    tidy(network)
    network.mark_whole()
    return network


def as_layers(model: nn.Module, call: Call) -> LayeredNetwork:
    """Return a copy of `model` as a graph of plain layers, for any batch size where the network allows it."""
    still = _still(model, call)
    try:
        network = _layers(model, capture_program(model, call, dynamic_batch=True), still)
        if _agrees(model, network, call):
            return network
        log.warning("the network does something else for other batch sizes; its fusion takes only this one")
    except CaptureError:
        pass  # the size of the batch is written into forward
    return _layers(model, capture_program(model, call), still)


def _layers(model: nn.Module, program: Program, still: frozenset[str]) -> LayeredNetwork:
    if not isinstance(model, LayeredNetwork):
        return layered(model, program, still=still)
    network = layered(model, program, fusions=model.fusions, still=still)
    network.meta["own_filters"] = dict(model.meta.get("own_filters", {}))
    return network


def _agrees(model: nn.Module, network: LayeredNetwork, call: Call) -> bool:
    """Return True if both compute the same, for the batch of `call` and for one sample (or twice as many)."""
    one = tree_map_only(Tensor, lambda t: t[:1] if t.dim() else t, call)
    other = repeat_batch(call, 2) if all(t.shape[:1] in ((), (1,)) for t in tensors(call)) else one
    with eval_mode(model), eval_mode(network):
        for given in (call, other):
            try:
                expected = flat_outputs(model, given)
            except Exception:
                if given is call:
                    raise
                continue  # the network itself takes no such batch
            try:
                if not agree(expected, flat_outputs(network, given)):
                    return False
            except Exception:
                return False
    return True


def _still(model: nn.Module, call: Call) -> frozenset[str]:
    """Return the names of running means that do not move in training, though nothing but a trial tells.

    Modules that override `train`, and batch norm as a function, can be frozen for good. Captured in eval
    mode, both look like batch norms that are not.
    """
    means = {n: b for n, b in model.named_buffers() if n.rpartition(".")[2] == "running_mean"}
    owners = [model.get_submodule(n.rpartition(".")[0]) for n in means]
    usual = all(type(m).train is nn.Module.train for m in model.modules())
    if isinstance(model, LayeredNetwork | ExportedNetwork) or (usual and all(_plain(m) for m in owners)):
        return frozenset()
    trial = copy.deepcopy(model).train()
    try:
        with torch.no_grad():
            args, kwargs = repeat_batch(call, 2)
            trial(*args, **kwargs)
    except Exception:
        return frozenset()  # it cannot be trained on such a batch
    after = dict(trial.named_buffers())
    return frozenset(n for n, b in means.items() if torch.equal(after[n], b))


def _plain(module: nn.Module) -> bool:
    return type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def _pass_of(entry: Any) -> str:
    try:
        name, _, _ = str(entry["pass"]), entry["at"], entry["operator"]
    except (KeyError, TypeError):
        raise PlanError(f"plan is corrupted at the fusion {entry!r}") from None
    if name not in passes.names():
        raise PlanError(
            f"the plan names a fusion {name!r} that billhook does not have; was it made by a newer version?"
        )
    return name


def _repeat(network: LayeredNetwork, name: str, entry: Mapping[str, Any]) -> None:
    at, operator = entry.get("at"), entry.get("operator")
    settings = {k: v for k, v in entry.items() if k not in ("pass", "at", "operator")}
    here = [f for f in passes.get(name).find(network, settings) if (f.at, f.operator) == (at, operator)]
    for found in here:
        if isinstance(found, Site) and as_record(name, found) == dict(entry):
            return rewrite_at(network, name, found)
    refused = next((f for f in here if isinstance(f, Refusal)), None)
    if refused is not None:
        raise PlanError(f"the plan's fusion {name!r} at {at!r} does not hold here: {refused.why}")
    raise PlanError(f"the plan's fusion {name!r} finds no {operator} at {at!r}; it is for another network")
