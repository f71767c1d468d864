"""Random weights under which every layer matters.

Two networks that must be the same function are compared with them: with a network's own weights a comparison
can be empty, because heads, residual branches or layer scales often start at zero.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from math import prod

import torch
from torch import Tensor, nn

from billhook.graph.capture import without_caches
from billhook.graph.slicing import named_tensors


def enliven_(tensors: Mapping[str, Tensor], seed: int = 0) -> None:
    """Fill every floating-point tensor with random numbers under which activations neither die nor grow.

    Matrices and kernels are normal with variance 2 ÷ fan-in, variances and scales lie in 0.5–1.5, shifts are
    small. Other tensors stay as they are, and so does the global random state.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        shape, leaf = tuple(tensor.shape), name.rsplit(".", 1)[-1]
        value = torch.empty(shape)
        if leaf in ("bias", "running_mean") or leaf.endswith("_bias"):
            value.normal_(0, 0.1, generator=generator)
        elif sum(s > 1 for s in shape) < 2:
            value.uniform_(0.5, 1.5, generator=generator)
        else:
            value.normal_(0, (2 / prod(shape[1:])) ** 0.5, generator=generator)
        tensor.detach().copy_(value)


@contextlib.contextmanager
def holding(network: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Let parameters and buffers of `network` hold `values` for a while; shared ones may be named once."""
    # By object, not by name: a module that is used under two names must get its own values back.
    swapped = {id(t): (t, t.data, values[n]) for n, t in named_tensors(network) if n in values}
    for tensor, _, value in swapped.values():
        tensor.data = value
    try:
        with without_caches(network):
            yield
    finally:
        for tensor, own, _ in swapped.values():
            tensor.data = own
