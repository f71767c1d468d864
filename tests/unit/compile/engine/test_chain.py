"""A product and the depthwise convolution that reads it, run together: against NumPy and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from billhook.compile.chains import CHAIN
from billhook.compile.ir import RELU
from tests.unit.compile.engine.builder import Model, numbers, up


@pytest.mark.parametrize("rows", [1, 4, 8])
@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize(("channels", "stride"), [(24, 1), (13, 2), (5, 1)])
def test_chain(rows: int, slots: int, channels: int, stride: int) -> None:
    inputs, size = 20, 18
    weight, bias = numbers(channels, inputs, seed=1)[0], numbers(channels, seed=2)[0]
    window, shift = numbers(channels, 3, 3, seed=3)[0], numbers(channels, seed=4)[0]
    given = numbers(inputs, size, size)
    middle = np.maximum(np.einsum("oc,bchw->bohw", weight, given) + bias[:, None, None], 0)
    expected = functional.conv2d(
        torch.from_numpy(middle),
        torch.from_numpy(window)[:, None],
        torch.from_numpy(shift),
        stride,
        1,
        groups=channels,
    )
    model = Model()
    x = model.reads(model.place(inputs, size, size))
    ring = model.place(CHAIN * slots, size, size)
    y = model.writes(model.place(channels, *expected.shape[2:]))
    planes = ring.addresses[np.arange(channels) % CHAIN]
    blocks = -(-channels // rows)
    full = np.zeros((blocks * rows, inputs), np.float32)
    full[:channels] = weight
    data: dict[str, Any] = {
        "columns": x.addresses,
        "starts": (np.arange(blocks + 1) * inputs).astype(np.uint32),
        "weights": full.reshape(blocks, rows, inputs).transpose(0, 2, 1),
        "bias": np.append(bias, np.zeros(blocks * rows - channels, np.float32)),
        "out": np.append(planes, np.full(blocks * rows - channels, -1, np.int32)),
        "mask": ring.mask,
    }
    args = {"rows": rows, "blocks": blocks, "vectors": ring.vectors, "panel": 2, "shared": 1}
    model.instruction("spmm", args | {"before": ring.before, "size": ring.size}, data, RELU)
    args = {**y.target(), **ring.source(), "kernel": 3, "stride": stride, "top": 1, "left": 1}
    args |= {"slots": slots, "slot": CHAIN * ring.stride}
    model.instruction("depthwise", args, {"in": planes, "weights": window, "bias": shift})
    assert model.end >= up(ring.stride * CHAIN * slots)
    model.check([given], expected.numpy(), 1e-4)
