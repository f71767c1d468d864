"""Zeros that stay zero and equal weights that stay equal, whatever an optimiser does."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

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

    @property
    def signs(self) -> dict[str, Tensor]:
        """The anchors that do not follow from the structures alone."""
        return {name: self.anchors[name] for name in self.signed}

    def step_(self, optimizer: torch.optim.Optimizer) -> None:
        """Bring everything back after a step of the optimiser."""
        self.momentum_(optimizer)
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
