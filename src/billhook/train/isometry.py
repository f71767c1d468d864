"""Dynamical isometry: how a network stretches changes of its input, and the learning rate that asks for."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from billhook.errors import InputError
from billhook.graph.inputs import as_call, tensors
from billhook.train.placement import device_of, mode_kept, to_device


@dataclass(frozen=True)
class JacobianSingularValues:
    """Singular values of ∂outputs/∂inputs, over all samples.

    Attributes:
        mean: Their mean; 1 is isometry.
        std: Their standard deviation.
        minimum: The smallest of any sample.
        maximum: The largest of any sample.
        condition: Mean over the samples of largest divided by smallest; infinite if one is 0.
    """

    mean: float
    std: float
    minimum: float
    maximum: float
    condition: float

    def to_dict(self) -> dict[str, float | None]:
        """Return plain data for JSON; None stands for infinite."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


def mean_jsv(model: nn.Module, inputs: Any) -> JacobianSingularValues:
    """Return the singular values of the input-output Jacobian of every sample in `inputs`.

    Takes one forward pass and as many backward passes as there are classes, so a batch of 8 to 16 samples is
    enough. The model is evaluated in eval mode (running statistics of batch norm) and left untouched.

    Args:
        model: Gives logits [batch, classes].
        inputs: One batch, as the model takes it.
    Raises:
        InputError: if the outputs are not logits or no input is differentiable.
    References:
        Wang et al., "Why is the State of Neural Network Pruning so Confusing?", 2023. arXiv:2301.05219.
    """
    with mode_kept(model), torch.enable_grad():
        model.eval()
        call = pytree.tree_map_only(Tensor, _leaf, to_device(as_call(inputs), device_of(model)))
        leaves = [t for t in tensors(call) if t.requires_grad]
        if not leaves:
            raise InputError("no input is a tensor of floating point numbers, so there is no Jacobian")
        args, kwargs = pytree.tree_map_only(Tensor, Tensor.clone, call)  # some networks write to inputs
        outputs = model(*args, **kwargs)
        if not isinstance(outputs, Tensor) or outputs.dim() != 2:
            shape = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise InputError(
                f"outputs must be logits of shape [batch, classes] to take a Jacobian, not {shape}"
            )
        rows = [_gradient(outputs[:, c].sum(), leaves) for c in range(outputs.shape[1])]
    values = torch.linalg.svdvals(torch.stack(rows, dim=1))  # [batch, min(classes, inputs)]
    condition = (values[:, 0] / values[:, -1]).mean()
    return JacobianSingularValues(
        mean=float(values.mean()),
        std=float(values.std(correction=0)),
        minimum=float(values.min()),
        maximum=float(values.max()),
        condition=float(condition) if math.isfinite(condition) else math.inf,
    )


def isometric_lr(
    before: JacobianSingularValues, after: JacobianSingularValues, *, low: float, high: float
) -> float:
    """Return the learning rate for fine-tuning a pruned network: low · (high / low)^d.

    d = 1 − min(1, after / before) is how much of the mean singular value pruning has cost. A network that
    still passes signals as the original did is fine-tuned at `low`; one that does not has to learn like a
    network at initialisation, at `high`. Rounded to two significant digits: the measurement is no finer.

    Args:
        before: Of the original.
        after: Of the pruned network, on the same samples.
        low: Rate for a network that is intact.
        high: Rate for one at initialisation.
    References:
        Wang et al., "Dynamical Isometry: The Missing Ingredient for Neural Network Pruning", 2021
        (arXiv:2105.05916): a larger rate makes up for lost isometry.
    Differs from the source:
        The rule itself is reconstructed: the source gives no formula, only that what is broken wants a larger
        rate.
    """
    damage = 0.0 if before.mean <= 0 else 1 - min(1.0, after.mean / before.mean)
    return float(f"{low * (high / low) ** damage:.2g}")


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_(tensor.is_floating_point())


def _gradient(output: Tensor, leaves: list[Tensor]) -> Tensor:
    """Return ∂output/∂inputs as one row per sample: [batch, inputs], float64."""
    found = torch.autograd.grad(output, leaves, retain_graph=True, materialize_grads=True)
    return torch.cat([g.flatten(1) for g in found], dim=1).to("cpu", torch.float64)
