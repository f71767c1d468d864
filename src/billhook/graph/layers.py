"""`LayeredNetwork`: a captured network as a graph of plain layers, which can be rewritten and trained.

Convolutions, linear layers, batch norms and dropout are modules of torch under the names that the user gave
them; everything else is a call of an operator. `print(network.code)` shows what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from billhook.graph.inputs import Call

Maker = Callable[[Mapping[str, Tensor | None]], nn.Module]
OWN_LAYERS: dict[str, tuple[tuple[str, ...], Maker]] = {}
"""Operator of billhook's own → (names of its tensors, what makes its layer of them).

Filled where the operator is defined, which nothing here imports.
"""


class LayeredNetwork(fx.GraphModule):
    """A network as a graph of plain layers; parameters and buffers have the original's names.

    Batch norm and dropout follow `training`; other behaviour is that of eval mode at capture.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> LayeredNetwork:
        memo |= {id(spec): spec for spec in (self._in_spec, self._out_spec)}
        copied: Any = super().__deepcopy__(memo)
        return copied.train(self.training)  # type: ignore[no-any-return]

    @property
    def fusions(self) -> tuple[Mapping[str, Any], ...]:
        """The rewrites that made this network out of the original, in order; see `Plan.fusions`."""
        return tuple(self.meta.get("fusions", ()))

    def record(self, fusion: Mapping[str, Any]) -> None:
        """Note a rewrite."""
        self.meta["fusions"] = (*self.fusions, fusion)


def observe(network: LayeredNetwork, call: Call) -> list[Any]:
    """Run the network once, note the shape of every value in its graph, and return the flat outputs."""

    class Observer(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, Tensor):
                n.meta["val"] = value.detach().to("meta")
            return value

    with torch.no_grad():
        flat = pytree.tree_leaves(call)
        outputs = Observer(network).run(*flat, enable_io_processing=False)
    return list(outputs)
