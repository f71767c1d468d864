"""ResNet-20 for small images."""

from __future__ import annotations

from functools import partial

from billhook.models._resnet import cifar_resnet
from billhook.registry import Info

INFO = Info(
    title="ResNet-20 for small images, 0.27 M parameters",
    source="He et al., Deep Residual Learning, CVPR 2016, arXiv:1512.03385",
)
ENTRY = partial(cifar_resnet, 20)
