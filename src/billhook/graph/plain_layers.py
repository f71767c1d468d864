"""torch's own layers from calls of their operators, without their tensors."""

from __future__ import annotations

from typing import Any

from torch import nn

from billhook.graph.rules._base import Call, shape_of

CONVOLUTIONS = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}
NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
DROPOUTS: dict[str, type[nn.Module]] = {
    "dropout": nn.Dropout, "alpha_dropout": nn.AlphaDropout, "feature_alpha_dropout": nn.FeatureAlphaDropout
}  # fmt: skip
FEATURE_DROPOUTS: dict[int, type[nn.Module]] = {3: nn.Dropout1d, 4: nn.Dropout2d, 5: nn.Dropout3d}


def convolution(call: Call) -> nn.Module:
    """Return the convolution of a call of conv1d to conv3d."""
    shape, groups = shape_of(call["weight"]), int(call["groups"])
    padding: Any = call["padding"]
    make: Any = CONVOLUTIONS[call.name]
    made: nn.Module = make(
        shape[1] * groups,
        shape[0],
        shape[2:],
        stride=_tuple(call["stride"], len(shape) - 2),
        padding=padding if isinstance(padding, str) else _tuple(padding, len(shape) - 2),
        dilation=_tuple(call["dilation"], len(shape) - 2),
        groups=groups,
        bias=False,
        device="meta",
    )
    return made


def linear(call: Call) -> nn.Module:
    """Return the linear layer of a call."""
    out, features = shape_of(call["weight"])
    return nn.Linear(features, out, bias=False, device="meta")


def batch_norm(call: Call) -> nn.Module:
    """Return the batch norm of a call."""
    x = shape_of(call.operands[0])
    return NORMS[len(x)](
        x[1], eps=float(call["eps"]), momentum=float(call["momentum"]), affine=False, device="meta"
    )


def _tuple(value: Any, length: int) -> tuple[int, ...]:
    return tuple(value) * (length // len(value)) if len(value) in (1, length) else tuple(value)
