"""Small fully connected networks by hand: forward and backward on a module's parameters, without autograd.

An agent updates networks of three layers thousands of times; autograd's bookkeeping then costs as much as the
arithmetic, and gradients are computed that nobody uses.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Perceptron:
    """Linear layers with ReLU between them, those of an `nn.Sequential`; what follows the last is left out.

    Args:
        layers: The module; its parameters are used and not copied.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        self._parameters = [(layer.weight, layer.bias) for layer in linear]
        self._tensors = [(layer.weight.data, layer.bias.data) for layer in linear]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return what every layer reads, and what comes out: [batch, width] each."""
        passed = [x]
        for weight, bias in self._tensors[:-1]:
            passed.append(torch.addmm(bias, passed[-1], weight.t()).relu_())
        weight, bias = self._tensors[-1]
        return [*passed, torch.addmm(bias, passed[-1], weight.t())]

    def backward(self, passed: list[Tensor], gradient: Tensor, *, to_input: bool) -> Tensor | None:
        """Carry the gradient of what came out back: to the parameters, or to the input only.

        Args:
            passed: What `forward` returned.
            gradient: Of the outputs: [batch, width of the last layer].
            to_input: Return the gradient of the input and leave those of the parameters; otherwise set them.
        """
        for i in reversed(range(len(self._tensors))):
            if not to_input:
                self._set(i, gradient.t() @ passed[i], gradient.sum(0))
                if i == 0:
                    return None
            gradient = gradient @ self._tensors[i][0]
            if i > 0:
                gradient = torch.ops.aten.threshold_backward(gradient, passed[i], 0)
        return gradient

    def _set(self, layer: int, weight: Tensor, bias: Tensor) -> None:
        parameters = self._parameters[layer]
        parameters[0].grad, parameters[1].grad = weight, bias
