"""VGG networks with batch norm for small images: 3×3 convolutions, now and then a max pooling."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from billhook.models._layers import check_channels, check_positive, conv_norm, initialise


class Vgg(nn.Module):
    """Convolutions and poolings in a row, global pooling, one linear layer."""

    def __init__(self, stages: Sequence[Sequence[int]], in_channels: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = in_channels
        for number, stage in enumerate(stages):
            if number:
                layers.append(nn.MaxPool2d(2))
            for wider in stage:
                layers += [*conv_norm(width, wider), nn.ReLU(inplace=True)]
                width = wider
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores [batch, classes] of images [batch, channels, height, width]."""
        x = self.pool(self.features(x)).flatten(1)
        out: Tensor = self.classifier(x)
        return out


def vgg(
    defaults: Sequence[Sequence[int]],
    /,
    *,
    in_channels: int = 3,
    num_classes: int = 10,
    channels: Sequence[int] | None = None,
) -> Vgg:
    """Return a VGG network with random weights.

    Args:
        defaults: Channels of the convolutions, by stage; a 2×2 max pooling stands between stages.
        in_channels: Of the image, which needs at least 2 ** (stages - 1) pixels on each side.
        num_classes: Number of outputs.
        channels: Channels of every convolution in order, instead of `defaults`.
    Raises:
        InputError: if an argument is out of range.
    References:
        Simonyan and Zisserman, "Very Deep Convolutional Networks", ICLR 2015. arXiv:1409.1556.
    Differs from the source:
        Batch norm, no bias before it, and one linear layer after global pooling, as is common for small
        images; the last pooling is the global one, so 28 pixels are enough for VGG-16.
    """
    check_positive(in_channels=in_channels, num_classes=num_classes)
    if channels is None:
        return Vgg(defaults, in_channels, num_classes)
    check_channels(channels, sum(len(stage) for stage in defaults), "convolution")
    widths = iter(channels)
    return Vgg([[next(widths) for _ in stage] for stage in defaults], in_channels, num_classes)
