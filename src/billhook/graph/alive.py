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


def alive_weights(tensors: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Return a random tensor for every floating-point one, scaled so that activations neither die nor grow.

    Other tensors are copied. Matrices and kernels are normal with variance 2 ÷ fan-in, variances and scales
    lie in 0.5–1.5, shifts are small. The global random state is not touched.
    """
    generator = torch.Generator().manual_seed(seed)
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            result[name] = tensor.clone()
            continue
        shape, leaf = tuple(tensor.shape), name.rsplit(".", 1)[-1]
        wide = [s for s in shape if s > 1]
        if leaf in ("bias", "running_mean") or leaf.endswith("_bias"):
            value = 0.1 * torch.randn(shape, generator=generator)
        elif len(wide) < 2:
            value = 0.5 + torch.rand(shape, generator=generator)
        else:
            value = torch.randn(shape, generator=generator) * (2 / prod(shape[1:])) ** 0.5
        result[name] = value.to(tensor.dtype).to(tensor.device)
    return result


@contextlib.contextmanager
def holding(network: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Let the parameters and buffers of `network` hold `values` for a while; shared ones may be named once."""
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
