"""LeNet-5 as pruning papers use it: two convolutions and two large linear layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from billhook.errors import InputError
from billhook.models._layers import check_channels, check_positive
from billhook.registry import Info

INFO = Info(
    title="LeNet-5 of the pruning literature: convolutions 20 and 50, linear 500, 0.43 M parameters",
    source="LeCun et al., Gradient-based Learning Applied to Document Recognition, Proc. IEEE 1998",
)


SMALLEST = 8  # pixels on a side
WIDTHS = (20, 50, 500)  # two convolutions and the first linear layer


class LeNet5(nn.Module):
    """Convolution 20, pooling, convolution 50, pooling, linear 500, linear.

    Args:
        in_channels: Of the image.
        num_classes: Number of outputs.
        image: Side of the image in pixels; at least 8.
        channels: Widths of the two convolutions and the first linear layer, instead of 20, 50 and 500.
    Raises:
        InputError: if an argument is out of range.
    References:
        LeCun et al., 1998, in the form of Caffe's examples, which pruning papers count: 430,500 weights for
        grey images of 28×28 pixels.
    Differs from the source:
        Images below 20 pixels are padded before each convolution, so that something is left of them.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        image: int = 28,
        channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, num_classes=num_classes, image=image)
        if image < SMALLEST:
            raise InputError(f"image={image}: LeNet-5 needs at least {SMALLEST} pixels on a side")
        if channels is not None:
            check_channels(channels, len(WIDTHS), "convolution and one for the first linear layer")
        first, second, hidden = channels or WIDTHS
        padding = 0 if image >= 20 else 2
        self.conv1 = nn.Conv2d(in_channels, first, 5, padding=padding)
        self.conv2 = nn.Conv2d(first, second, 5, padding=padding)
        side = image
        for _ in range(2):
            side = (side - 4 + 2 * padding) // 2
        self.fc1 = nn.Linear(second * side * side, hidden)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores [batch, classes] of images [batch, channels, height, width]."""
        x = functional.max_pool2d(self.conv1(x), 2)
        x = functional.max_pool2d(self.conv2(x), 2)
        out: Tensor = self.fc2(functional.relu(self.fc1(x.flatten(1))))
        return out


ENTRY = LeNet5
