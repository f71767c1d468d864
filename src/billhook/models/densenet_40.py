"""DenseNet-40: every layer sees the concatenation of all layers before it in its block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from billhook.models._layers import check_channels, check_positive, initialise
from billhook.registry import Info

INFO = Info(
    title="DenseNet-40 (growth 12) for small images, 1.0 M parameters",
    source="Huang et al., CVPR 2017, arXiv:1608.06993",
)

_BLOCKS, _LAYERS = 3, 12  # 3 × 12 layers, the stem, two transitions, the classifier: 40


class DenseLayer(nn.Module):
    """Norm, ReLU, 3×3 convolution; the result is appended to the input."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature maps that follow from `x` [batch, channels, height, width]."""
        return torch.cat([x, self.conv(F.relu(self.bn(x)))], 1)


class Transition(nn.Module):
    """Norm, ReLU, 1×1 convolution, 2×2 average pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature maps that follow from `x` [batch, channels, height, width]."""
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class DenseNet(nn.Module):
    """A stem, three dense blocks with transitions between them, norm, global pooling, a classifier."""

    def __init__(self, stem: int, growths: Sequence[int], in_channels: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)]
        width = stem
        for number, growth in enumerate(growths):
            if number and number % _LAYERS == 0:
                layers.append(Transition(width))
            layers.append(DenseLayer(width, growth))
            width += growth
        self.features = nn.Sequential(*layers)
        self.bn = nn.BatchNorm2d(width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores [batch, classes] of images [batch, channels, height, width]."""
        x = F.relu(self.bn(self.features(x)))
        out: Tensor = self.classifier(self.pool(x).flatten(1))
        return out


def densenet_40(
    *,
    in_channels: int = 3,
    num_classes: int = 10,
    growth: int = 12,
    stem: int = 16,
    channels: Sequence[int] | None = None,
) -> DenseNet:
    """Return a DenseNet-40 (no bottlenecks, no compression) with random weights.

    Args:
        in_channels: Of the image.
        num_classes: Number of outputs.
        growth: Channels that each of the 36 dense layers adds (k in the paper).
        stem: Channels of the first convolution.
        channels: Channels that each of the 36 layers adds, instead of `growth`.
    Raises:
        InputError: if an argument is out of range.
    References:
        Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, table 2. arXiv:1608.06993.
    """
    check_positive(in_channels=in_channels, num_classes=num_classes, growth=growth, stem=stem)
    channels = [growth] * (_BLOCKS * _LAYERS) if channels is None else channels
    check_channels(channels, _BLOCKS * _LAYERS, "dense layer")
    return DenseNet(stem, channels, in_channels, num_classes)


ENTRY = densenet_40
