"""Equivalent rewrites of a network as data: what a pass is, and how a plan's fusions are made again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import nn

from billhook.errors import CaptureError, PlanError
from billhook.graph.capture import Program, capture_program, eval_mode
from billhook.graph.inputs import Call, synthesize
from billhook.graph.layering import layered
from billhook.graph.layers import LayeredNetwork, observe
from billhook.graph.plan import Plan
from billhook.registry import Registry

Kind = Literal["widen", "fold"]


@dataclass(frozen=True)
class Site:
    """A place where a pass can rewrite a network.

    Attributes:
        at: Name of the layer or block.
        operator: What is rewritten; one of the names in `Pass.operators`.
        settings: Further choices, plain values, that make the same rewrite again.
    """

    at: str
    operator: str
    settings: Mapping[str, Any] = field(default_factory=dict)


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
        """Rewrite the graph at `site`, in place; new nodes get the shape of their value, too."""


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
    for entry in (
        wanted[len(network.fusions) :] if network.fusions == wanted[: len(network.fusions)] else wanted
    ):
        with eval_mode(network):  # looking must not move statistics
            observe(network, call)
        _repeat(network, entry)
    tidy(network)
    return network


def as_layers(model: nn.Module, call: Call) -> LayeredNetwork:
    """Return a copy of `model` as a graph of plain layers, for any batch size where the network allows it."""
    program = capture_free(model, call)
    if not isinstance(model, LayeredNetwork):
        return layered(model, program)
    network = layered(model, program, fusions=model.fusions)
    network.meta["own_filters"] = dict(model.meta.get("own_filters", {}))
    return network


def capture_free(model: nn.Module, call: Call) -> Program:
    """Return the captured forward pass, for any batch size if possible, else for that of `call`."""
    try:
        return capture_program(model, call, dynamic_batch=True)
    except CaptureError:
        return capture_program(model, call)


def _repeat(network: LayeredNetwork, entry: Any) -> None:
    try:
        settings = {k: v for k, v in entry.items() if k not in ("pass", "at", "operator")}
        name, site = str(entry["pass"]), Site(str(entry["at"]), str(entry["operator"]), settings)
        known = name in passes.names()
    except (KeyError, TypeError, AttributeError):
        raise PlanError(f"plan is corrupted at the fusion {entry!r}") from None
    if not known:
        raise PlanError(
            f"the plan names a fusion {name!r} that billhook does not have; was it made by a newer version?"
        )
    here = [
        f for f in passes.get(name).find(network, settings) if (f.at, f.operator) == (site.at, site.operator)
    ]
    holds = next((f for f in here if isinstance(f, Site)), None)
    if holds is not None:
        return rewrite_at(network, name, holds)
    if here and isinstance(here[0], Refusal):
        raise PlanError(f"the plan's fusion {name!r} at {site.at!r} does not hold here: {here[0].why}")
    raise PlanError(
        f"the plan's fusion {name!r} finds no {site.operator} at {site.at!r}; it is for another network"
    )
