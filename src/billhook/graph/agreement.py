"""Whether two networks compute the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from billhook.graph.alive import holding
from billhook.graph.inputs import Call, copied

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}


def agree(expected: list[Any], got: list[Any]) -> bool:
    """Return True if two lists of outputs are equal up to rounding."""
    return len(expected) == len(got) and all(_same(a, b) for a, b in zip(expected, got, strict=True))


def _same(a: Any, b: Any) -> bool:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return type(a) is type(b) and (isinstance(a, Tensor) or a == b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point() or not a.numel():
        return torch.equal(a, b)
    finite = a[a.isfinite()]
    scale = finite.abs().max().item() if finite.numel() else 0.0
    return torch.allclose(a, b, rtol=0, atol=TOLERANCE[a.dtype] * max(scale, 1e-6), equal_nan=True)


def flat_outputs(network: nn.Module, call: Call) -> list[Any]:
    """Return everything `network` returns for `call`, flattened; inputs and buffers stay as they are."""
    args, kwargs = copied(call)
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with torch.no_grad(), holding(network, buffers):
        return pytree.tree_leaves(network(*args, **kwargs))
