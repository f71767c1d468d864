"""MobileNetV2 for small images: inverted residual blocks with depthwise convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from billhook.errors import InputError
from billhook.models._layers import check_channels, check_positive, conv_norm, initialise
from billhook.registry import Info

INFO = Info(
    title="MobileNetV2 for small images, 2.2 M parameters",
    source="Sandler et al., CVPR 2018, arXiv:1801.04381",
)

# Expansion, output channels, repetitions, stride of the first: table 2 of the paper, but with stride 1
# in the second row, where the paper's larger images are halved once more.
_ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM, _HEAD = 32, 1280


class InvertedResidual(nn.Module):
    """Widen (1×1), depthwise 3×3, narrow (1×1, no activation); added to the input if shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [*conv_norm(in_channels, hidden, 1), nn.ReLU6(inplace=True)]
        layers += [*conv_norm(hidden, hidden, stride=stride, groups=hidden), nn.ReLU6(inplace=True)]
        layers += conv_norm(hidden, out_channels, 1)
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature maps that follow from `x` [batch, channels, height, width]."""
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class MobileNetV2(nn.Module):
    """A stem, seven rows of inverted residuals, a wide 1×1 convolution, global pooling, a classifier."""

    def __init__(
        self, channels: Sequence[int], in_channels: int, num_classes: int, stem_stride: int, dropout: float
    ) -> None:
        super().__init__()
        stem, *rows, head = channels
        layers: list[nn.Module] = [*conv_norm(in_channels, stem, stride=stem_stride), nn.ReLU6(inplace=True)]
        width = stem
        for wider, (expansion, _, repetitions, stride) in zip(rows, _ROWS, strict=True):
            for number in range(repetitions):
                layers.append(InvertedResidual(width, wider, stride if number == 0 else 1, expansion))
                width = wider
        layers += [*conv_norm(width, head, 1), nn.ReLU6(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(head, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores [batch, classes] of images [batch, channels, height, width]."""
        x = self.pool(self.features(x)).flatten(1)
        out: Tensor = self.classifier(self.dropout(x))
        return out


def mobilenet_v2(
    *,
    in_channels: int = 3,
    num_classes: int = 10,
    width: float = 1.0,
    channels: Sequence[int] | None = None,
    stem_stride: int = 1,
    dropout: float = 0.0,
) -> MobileNetV2:
    """Return a MobileNetV2 for small images with random weights.

    Args:
        in_channels: Of the image.
        num_classes: Number of outputs.
        width: Multiplier of all channels, which are rounded to multiples of 8; the last 1×1 convolution
            does not get narrower than 1280.
        channels: Nine numbers, stem, seven rows, last convolution, instead of `width`.
        stem_stride: 2 halves the image at once.
        dropout: Before the classifier.
    Raises:
        InputError: if an argument is out of range.
    References:
        Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 2.
        arXiv:1801.04381.
    Differs from the source:
        The stem (by default) and the second row keep the size of the image, which is small already.
    """
    check_positive(in_channels=in_channels, num_classes=num_classes, stem_stride=stem_stride)
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width <= 8:
        raise InputError(f"width is a multiplier between 0 and 8, e.g. 0.5, not {width!r}")
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise InputError(f"dropout must be at least 0 and below 1, not {dropout!r}")
    if channels is None:
        body = [_to_multiple(size * width) for size in (_STEM, *(row[1] for row in _ROWS))]
        channels = [*body, _to_multiple(_HEAD * max(1.0, width))]
    check_channels(channels, 9, "stem, row and last convolution")
    return MobileNetV2(channels, in_channels, num_classes, stem_stride, dropout)


def _to_multiple(size: float, divisor: int = 8) -> int:
    """Return the nearest multiple, at least `divisor`, and never more than a tenth below `size`."""
    rounded = max(divisor, int(size + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * size else rounded


ENTRY = mobilenet_v2
