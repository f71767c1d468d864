"""What the networks of the zoo share: checked sizes, conv-norm pairs, initial weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from billhook.errors import InputError


def check_positive(**sizes: object) -> None:
    """Raise `InputError` for the first size that is not a positive integer."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InputError(f"{name} must be a positive integer, not {size!r}")


def check_channels(channels: Sequence[object], count: int, what: str) -> None:
    """Raise `InputError` unless `channels` has `count` positive integers, one per `what`."""
    if isinstance(channels, str) or not isinstance(channels, Sequence) or len(channels) != count:
        raise InputError(f"channels must be a list of {count} numbers, one per {what}, not {channels!r}")
    for position, size in enumerate(channels):
        check_positive(**{f"channels[{position}]": size})


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int = 3, *, stride: int = 1, groups: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Return a "same" convolution without bias and its batch norm."""
    conv = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=groups,
        bias=False,
    )
    return conv, nn.BatchNorm2d(out_channels)


def initialise(model: nn.Module) -> None:
    """Draw convolutions from He's normal distribution (by fan-out), the classifier from a narrow one."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
