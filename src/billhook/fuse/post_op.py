"""A layer with its activation as one operator."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


class WithActivation(nn.Sequential):
    """A layer and the activation of its output, called together.

    Its tensors are found as "<name>.layer.weight" and so on. It computes what the two do one after the other:
    the list of operators counts it as one, but eager PyTorch is not faster for it. Runtimes (ONNX Runtime,
    OpenVINO) make one operator of a layer and its activation on their own; there it changes nothing at all.

    Args:
        layer: A convolution, linear layer or batch norm.
        activation: A layer that works element by element.
    """

    def __init__(self, layer: nn.Module, activation: nn.Module) -> None:
        super().__init__(OrderedDict(layer=layer, activation=activation))
        self.train(layer.training)
