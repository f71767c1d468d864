"""Zeros that stay zero and equal weights that stay equal, whatever an optimiser does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from billhook.errors import InputError
from billhook.graph.patterns import Pattern
from billhook.graph.structure import Structure, require_fit


class Held:
    """Structures of a network that is being trained.

    What is held are weights, gradients and the momentum of the optimiser, so that neither momentum nor weight
    decay lets anything leak. Averages of squares and the like only scale a step.

    Attributes:
        structures: By the name of a weight.
        anchors: By the same names, what training must not change: zeros, and signs of equal weights.
        signed: Names of those whose anchors do not follow from the structure alone.
    """

    def __init__(
        self,
        model: nn.Module,
        structures: Mapping[str, Structure],
        anchors: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Give the network the structures, in place, and remember their anchors.

        Args:
            model: Its weights are changed.
            structures: By the name of a weight.
            anchors: Of an earlier `Held`, for those named here; others follow from the weights.
        Raises:
            PlanError: if a structure does not fit the network.
        """
        self.structures = dict(structures)
        self._weights = _weights(model, self.structures)
        self.anchors: dict[str, Tensor] = {}
        for name, weight in self._weights.items():
            own = weight.detach()
            given = (anchors or {}).get(name)
            anchor = self.structures[name].anchor(own) if given is None else given
            self.anchors[name] = torch.empty_like(own).copy_(anchor)  # in its layout
        masks = {n for n, s in self.structures.items() if type(s.pattern).hold is Pattern.hold}
        self.signed = [n for n in self.structures if n not in masks]
        self._gone = {n: self.anchors[n] == 0 for n in self.structures if n in masks}
        self.weights_()

    def weights_(self) -> None:
        """Bring the weights back to their structures."""
        self._hold_({n: w.detach() for n, w in self._weights.items()})

    def gradients_(self) -> None:
        """Take from the gradients what would leave the structures."""
        self._hold_({n: w.grad for n, w in self._weights.items() if w.grad is not None})

    def momentum_(self, optimizer: torch.optim.Optimizer) -> None:
        """Take from what the optimiser remembers what would leave the structures."""
        remembered: dict[str, dict[str, Tensor]] = {}
        for name, weight in self._weights.items():
            for key, value in optimizer.state.get(weight, {}).items():
                if key in _MOMENTA and isinstance(value, Tensor) and value.shape == weight.shape:
                    remembered.setdefault(key, {})[name] = value
        for tensors in remembered.values():
            self._hold_(tensors)

    @torch.no_grad()
    def _hold_(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if name in self._gone:
                tensor.masked_fill_(self._gone[name], 0.0)
            else:
                tensor.copy_(self.structures[name].hold(tensor, self.anchors[name]))


# What optimisers of PyTorch call averages of gradients (and of weights: ASGD), which are linear in them.
_MOMENTA = frozenset(["momentum_buffer", "exp_avg", "grad_avg", "ax", "prev"])


@contextmanager
def holding(
    model: nn.Module, optimizer: torch.optim.Optimizer, structures: Mapping[str, Structure]
) -> Iterator[Held]:
    """Hold structures in a training loop of your own: around every step of the optimiser inside the block.

        with holding(network, optimizer, plan.patterns):
            for inputs, targets in loader: ...

    Works with the optimisers of PyTorch that make their steps from the gradients of the moment, with or
    without a closure.

    Raises:
        InputError: for L-BFGS, whose steps come from a history of gradients that nobody can hold.
        PlanError: if a structure does not fit the network.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise InputError("L-BFGS cannot hold patterns: it remembers all weights in one; take SGD or AdamW")
    held = Held(model, structures)
    held.momentum_(optimizer)

    def before(
        _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        own, *rest = args
        closure = kwargs.get("closure", rest[0] if rest else None)
        if closure is None:
            held.gradients_()
            return None

        def with_gradients() -> Any:
            result = closure()
            held.gradients_()
            return result

        return (own,), {**kwargs, "closure": with_gradients}

    def after(*_: Any) -> None:
        held.momentum_(optimizer)
        held.weights_()

    handles = [optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)]
    try:
        yield held
    finally:
        for handle in handles:
            handle.remove()


def holds(model: nn.Module, structures: Mapping[str, Structure]) -> str | None:
    """Return the name of the first weight that does not have its structure, bit by bit; None if all do."""
    for name, weight in _weights(model, structures).items():
        own = weight.detach()
        if not torch.equal(structures[name].project(own), own):
            return name
    return None


def _weights(model: nn.Module, structures: Mapping[str, Structure]) -> dict[str, nn.Parameter]:
    named = dict(model.named_parameters(remove_duplicate=False))
    for name, structure in structures.items():
        require_fit(name, named.get(name), structure)
    return {name: named[name] for name in structures}
