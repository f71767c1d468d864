"""Activations become a part of the layer whose output they work on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import fx, nn

from billhook.fuse._match import name_of
from billhook.fuse.passes._folding import calls_of, linear_of, occupied
from billhook.fuse.post_op import WithActivation
from billhook.graph.fusions import Pass, Refusal, Site
from billhook.graph.layers import LayeredNetwork
from billhook.graph.rules._base import Call, bind
from billhook.registry import Info

INFO = Info(
    title="activations as a part of the layer before them",
    source="Li et al., TCAD 39(11) 2020, arXiv:2010.16165",
    notes="one operator less to count; runtimes do the same on their own",
)

ACTIVATIONS: Mapping[str, Callable[[Call], nn.Module]] = {
    "relu": lambda call: nn.ReLU(),
    "relu6": lambda call: nn.ReLU6(),
    "hardtanh": lambda call: _hardtanh(float(call["min_val"]), float(call["max_val"])),
    "leaky_relu": lambda call: nn.LeakyReLU(float(call["negative_slope"])),
    "silu": lambda call: nn.SiLU(),
    "hardswish": lambda call: nn.Hardswish(),
    "gelu": lambda call: nn.GELU(str(call["approximate"])),
    "sigmoid": lambda call: nn.Sigmoid(),
    "tanh": lambda call: nn.Tanh(),
}


class Activation(Pass):
    """act(layer(x)) becomes one layer, if nothing else reads the layer's output.

    The layer keeps its name and becomes a `WithActivation`; its tensors move to "<name>.layer". Values, MACs
    and parameters are the same. It runs last, because no other pass looks into such a layer.
    """

    kind = "fold"
    operators = ("activation",)

    def find(self, network: LayeredNetwork, settings: Mapping[str, Any]) -> Iterator[Site | Refusal]:  # noqa: D102
        calls = calls_of(network)
        for node in network.graph.nodes:
            if name_of(node) not in ACTIVATIONS:
                continue
            producer = node.all_input_nodes[0]
            layer = linear_of(network, producer)
            if layer is None:
                continue
            at = str(producer.target)
            why = occupied(calls, producer)
            if why is None and next(layer.children(), None) is not None:
                why = f"{at} holds other layers"
            yield Site(at, "activation", match=node) if why is None else Refusal(at, "activation", why)

    def rewrite(self, network: LayeredNetwork, site: Site) -> None:  # noqa: D102
        node: fx.Node = site.match
        layer = network.get_submodule(site.at)
        network.set_submodule(site.at, WithActivation(layer, ACTIVATIONS[name_of(node)](bind(node))))
        node.replace_all_uses_with(node.all_input_nodes[0])


def _hardtanh(low: float, high: float) -> nn.Module:
    return nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)


ENTRY = Activation()
