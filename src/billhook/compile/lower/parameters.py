"""Arguments of layers as the operators have them."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from billhook.compile.ir import Floats, Pair
from billhook.compile.lower.base import Builder
from billhook.compile.lower.view import Doubles
from billhook.graph.rules._base import Call


def pair(sizes: Any, dims: int = 2, *, fill: int = 1) -> Pair:
    """Return sizes, or one for all of them, as vertical and horizontal; `fill` stands for a lacking one."""
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    sizes = sizes * dims if len(sizes) == 1 else sizes
    return (fill, int(sizes[0])) if dims == 1 else (int(sizes[0]), int(sizes[1]))


def floats(values: Tensor | Doubles) -> Floats:
    """Return a copy of numbers as the IR keeps them."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    return np.array(array, dtype=np.float32, order="C")


def bias_of(build: Builder, call: Call, outputs: int) -> Floats:
    """Return the bias of a layer, zeros if it has none."""
    bias = build.constant(call, "bias")
    return np.zeros(outputs, np.float32) if bias is None else floats(bias)
