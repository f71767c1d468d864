"""`LayeredNetwork`: a captured network as a graph of plain layers, which can be rewritten and trained.

Convolutions, linear layers, batch norms and dropout are modules of torch under the names that the user gave
them; everything else is a call of an operator. `print(network.code)` shows what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from billhook.errors import StorageError
from billhook.graph.inputs import Call, copied

Maker = Callable[[Mapping[str, Tensor | None]], nn.Module]
OWN_LAYERS: dict[str, tuple[tuple[str, ...], Maker]] = {}
"""Operator of billhook's own → (names of its tensors, what makes its layer of them).

Filled where the operator is defined, which nothing here imports.
"""


class LayeredNetwork(fx.GraphModule):
    """A network as a graph of plain layers; parameters and buffers have the original's names.

    Batch norm and dropout follow `training`, dropout even where the original calls it with a constant; other
    behaviour is that of eval mode at capture.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> LayeredNetwork:
        memo |= {id(spec): spec for spec in (self._in_spec, self._out_spec)}
        made: Any = super().__deepcopy__(memo)
        take_after(made, self)
        return made  # type: ignore[no-any-return]

    @property
    def fusions(self) -> tuple[Mapping[str, Any], ...]:
        """The rewrites that made this network out of the original, in order; see `Plan.fusions`."""
        return tuple(self.meta.get("fusions", ()))

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise StorageError(
            "a network of plain layers is not pickled, because its fusions would be lost: save it with "
            "billhook.save(directory, network, plan), or its tensors with torch.save(network.state_dict(), …)"
        )

    @property
    def whole(self) -> bool:
        """True if nothing has left the network since it was fused."""
        return bool(self.meta.get("shapes") == self._shapes())

    def mark_whole(self) -> None:
        """Note that nothing has left yet."""
        self.meta["shapes"] = self._shapes()

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}

    @property
    def own_filters(self) -> Mapping[str, int]:
        """Weight of a convolution whose last filters copy its input → number of filters before them."""
        return {
            n: own
            for n, (own, all_) in self.meta.get("own_filters", {}).items()
            if n in dict(self.named_parameters()) and self.get_parameter(n).shape[0] == all_
        }

    def record(self, fusion: Mapping[str, Any]) -> None:
        """Note a rewrite."""
        self.meta["fusions"] = (*self.fusions, fusion)


def take_after(made: nn.Module, model: nn.Module) -> None:
    """Give what was made of `model` what its graph does not tell.

    Modules of the same names get the same mode (norms may be frozen) and momentum, and hold things in the
    same order: ids of groups depend on it. Buffers that are no part of the state are none here.
    """
    originals = dict(model.named_modules(remove_duplicate=False))
    for name, module in list(made.named_modules(remove_duplicate=False)):
        original = originals.get(name)
        if original is None:
            continue
        module.training = original.training
        for held in ("_modules", "_parameters", "_buffers"):
            own, places = getattr(module, held), {n: i for i, n in enumerate(getattr(original, held))}
            for key in sorted(own, key=lambda n, p=places: p.get(n, len(p))):  # type: ignore[misc]
                own[key] = own.pop(key)
        module._non_persistent_buffers_set |= original._non_persistent_buffers_set & module._buffers.keys()
        if isinstance(module, _BatchNorm) and isinstance(original, _BatchNorm):
            module.momentum = original.momentum


def put(root: nn.Module, name: str, value: nn.Module | Tensor, *, persistent: bool = True) -> None:
    """Register a layer, parameter or buffer under a dotted name; modules on the way are made."""
    *path, leaf = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]  # type: ignore[assignment]
    if isinstance(value, nn.Module):
        if (there := root._modules.get(leaf)) is not None:  # what is inside a layer may be met before it
            value._modules |= there._modules
            value._parameters |= there._parameters
            value._buffers |= there._buffers
        root.add_module(leaf, value)
    elif isinstance(value, nn.Parameter):
        root.register_parameter(leaf, value)
    else:
        root.register_buffer(leaf, value, persistent=persistent)


def observe(network: LayeredNetwork, call: Call) -> list[Any]:
    """Run the network once, note the shape of every value in its graph, and return the flat outputs."""

    class Observer(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, Tensor):
                n.meta["val"] = value.detach().to("meta")
            return value

    with torch.no_grad():
        flat = pytree.tree_leaves(copied(call))  # networks may work in place
        outputs = Observer(network).run(*flat, enable_io_processing=False)
    return list(outputs)
