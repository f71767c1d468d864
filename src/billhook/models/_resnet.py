"""ResNets for small images (He et al. 2016, section 4.2): three stages of basic blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from billhook.errors import InputError
from billhook.models._layers import check_channels, check_positive, conv_norm, initialise


class PaddedShortcut(nn.Module):
    """Option A: every `stride`-th pixel, channels filled up with zeros; no weights.

    The number of zeros is one attribute, and the forward uses no other size, so a pruned network only has
    to change it.

    Args:
        padding: Zero channels behind those of the input.
        stride: Step in both image directions.
    """

    def __init__(self, padding: int, stride: int) -> None:
        super().__init__()
        self.padding, self.stride = padding, stride

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature maps that follow from `x` [batch, channels, height, width]."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.padding))

    def extra_repr(self) -> str:
        return f"padding={self.padding}, stride={self.stride}"


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut around them."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_norm(in_channels, out_channels, stride=stride)
        self.conv2, self.bn2 = conv_norm(out_channels, out_channels)
        self.shortcut = _shortcut(in_channels, out_channels, stride, option)

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature maps that follow from `x` [batch, channels, height, width]."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """A stem, three stages that halve the image between them, global pooling, a classifier."""

    def __init__(
        self,
        blocks: int,
        channels: Sequence[int],
        in_channels: int,
        num_classes: int,
        stem_stride: int,
        option: str,
    ) -> None:
        super().__init__()
        self.conv, self.bn = conv_norm(in_channels, channels[0], stride=stem_stride)
        stages: list[nn.Module] = []
        width = channels[0]
        for number, wider in enumerate(channels):
            strides = [1 if number == 0 else 2] + [1] * (blocks - 1)
            stage = [BasicBlock(width, wider, strides[0], option)]
            stage += [BasicBlock(wider, wider, stride, option) for stride in strides[1:]]
            stages.append(nn.Sequential(*stage))
            width = wider
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores [batch, classes] of images [batch, channels, height, width]."""
        x = F.relu(self.bn(self.conv(x)))
        x = self.pool(self.stages(x)).flatten(1)
        out: Tensor = self.classifier(x)
        return out


def cifar_resnet(
    depth: int,
    /,
    *,
    in_channels: int = 3,
    num_classes: int = 10,
    width: int = 16,
    channels: Sequence[int] | None = None,
    stem_stride: int = 1,
    shortcut: str = "A",
) -> CifarResNet:
    """Return a ResNet of 6n + 2 layers with random weights.

    Args:
        depth: 6n + 2: 8, 20, 32, 44, 56, 110.
        in_channels: Of the image.
        num_classes: Number of outputs.
        width: Channels of the first stage; the others have two and four times as many.
        channels: Channels of the three stages, instead of `width`.
        stem_stride: 2 halves the image at once: a quarter of the MACs.
        shortcut: Where the shape changes: "A" pads with zeros, "B" is a 1×1 convolution with batch norm.
    Raises:
        InputError: if an argument is out of range.
    References:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. arXiv:1512.03385.
    Differs from the source:
        Option A puts all zeros behind the channels; the paper does not say where, and some put half in front.
    """
    check_positive(in_channels=in_channels, num_classes=num_classes, width=width, stem_stride=stem_stride)
    if depth < 8 or (depth - 2) % 6:
        raise InputError(f"the depth of a CIFAR ResNet is 8, 14, 20, … (6n + 2), not {depth}")
    if shortcut not in ("A", "B"):
        raise InputError(f"shortcut must be 'A' (zero padding) or 'B' (1x1 convolution), not {shortcut!r}")
    channels = [width, 2 * width, 4 * width] if channels is None else channels
    check_channels(channels, 3, "stage")
    if shortcut == "A" and sorted(channels) != list(channels):
        raise InputError(f"shortcut 'A' only adds channels, so channels={channels!r} must not fall; use 'B'")
    return CifarResNet((depth - 2) // 6, channels, in_channels, num_classes, stem_stride, shortcut)


def _shortcut(in_channels: int, out_channels: int, stride: int, option: str) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if option == "B":
        return nn.Sequential(*conv_norm(in_channels, out_channels, 1, stride=stride))
    return PaddedShortcut(out_channels - in_channels, stride)
