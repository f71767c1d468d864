"""SynFlow: how much of the network's flow, all weights positive, goes through a weight. Needs no data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from billhook.criteria._base import Calibration, ScoreContext
from billhook.criteria._passes import outputs_of, recording, untouched
from billhook.criteria._weight_sums import WeightSums
from billhook.errors import InputError
from billhook.graph.alive import holding
from billhook.graph.inputs import tensors
from billhook.graph.slicing import named_tensors
from billhook.registry import Info

INFO = Info(
    "share of the flow from an all-ones input to the outputs, with absolute weights",
    "Tanaka et al., SynFlow, NeurIPS 2020, arXiv:2006.05467",
    notes="made for untrained networks without layer norms; saturation (ReLU6, sigmoid) stops the flow",
)


def flow(
    model: nn.Module, names: Sequence[str], inputs: Any, seed: int = 0
) -> tuple[dict[str, Tensor], float]:
    """Return |θ| ⊙ ∂R/∂|θ| of the named tensors, float64, and R, the sum of the outputs.

    Meanwhile all parameters have their absolute values, batch norms fresh statistics, and everything is
    float64, because products over many layers leave the range of float32. Eval mode. For feed-forward
    networks without biases and norms, the sum over any layer equals R.

    Args:
        model: Left untouched, to the bit.
        names: Of parameters.
        inputs: For the model; see `ones`.
        seed: Of the random state meanwhile.
    """
    values = {name: _positive(name, t) for name, t in named_tensors(model) if t.is_floating_point()}
    with untouched(model, seed), recording(model, names) as sources, holding(model, values):
        sums = [t.sum() for t in tensors(outputs_of(model, inputs)) if t.requires_grad]
        if not sums:
            raise InputError("criterion 'synflow': the model's outputs do not depend on its weights")
        total = sum(sums[1:], sums[0])
        gradients = torch.autograd.grad(total, sources, allow_unused=True, materialize_grads=True)
        products = [s.detach() * g for s, g in zip(sources, gradients, strict=True)]
    return dict(zip(names, products, strict=True)), float(total.detach())


def ones(inputs: Any, device: torch.device) -> Any:
    """Return `inputs` with all floats 1, as float64; integers stay, because there is no neutral token."""
    return tree_map_only(
        Tensor,
        lambda t: (
            torch.ones_like(t, dtype=torch.float64, device=device) if t.is_floating_point() else t.to(device)
        ),
        inputs,
    )


def _positive(name: str, tensor: Tensor) -> Tensor:
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_mean":
        return torch.zeros_like(tensor, dtype=torch.float64)
    if leaf == "running_var":
        return torch.ones_like(tensor, dtype=torch.float64)
    # Other buffers are no weights: masks, tables of positions.
    value = tensor.detach().double()
    return value.abs() if isinstance(tensor, nn.Parameter) else value


@dataclass(frozen=True)
class Synflow(WeightSums):
    """Σ |w| · ∂R/∂|w| over the unit's weights, divided by R, the sum of the outputs; see `flow`.

    The input has the shape of the example inputs, or of the first batch of data if there are none.

    References:
        Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow",
        NeurIPS 2020, alg. 1. arXiv:2006.05467.
    Differs from the source:
        Sums over units, and one step; the source's 100 are for a method that scores again and again. Buffers
        keep their signs, except that batch norms get fresh statistics. Integer inputs (tokens, masks) keep
        their values. Scores can be negative where numbers in the flow are (layer norm, attention).
    """

    def importance(
        self,
        model: nn.Module,
        names: Sequence[str],
        context: ScoreContext,
        calibration: Calibration | None,
    ) -> Mapping[str, Tensor]:
        """Return the share of every weight."""
        inputs = context.example_inputs
        if inputs is None:
            first = None if calibration is None else next(islice(calibration.batches, 1), None)
            if not isinstance(first, (tuple, list)) or len(first) != 2:
                raise InputError(
                    "criterion 'synflow' needs the shape of an input; give example_inputs or "
                    "data=[(inputs, targets), …]"
                )
            inputs = first[0]
        products, total = flow(model, names, ones(inputs, _device(model)), context.seed)
        return {name: product / (abs(total) or 1.0) for name, product in products.items()}


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


ENTRY = Synflow
