"""A network's tensors as they are now: copies of them, and ways back."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


def live(model: nn.Module) -> Weights:
    """Return all parameters and buffers by name, not copied; shared ones once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def copy_of(model: nn.Module) -> Weights:
    """Return copies of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in live(model).items()}


@torch.no_grad()
def write(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy `weights` into the model, in place."""
    for name, tensor in live(model).items():
        tensor.copy_(weights[name])


def all_finite(model: nn.Module) -> bool:
    """Return False if any floating-point parameter or buffer holds NaN or infinity (or is about to)."""
    floats = [t.detach() for t in live(model).values() if t.is_floating_point() and t.numel()]
    return not floats or bool(torch.isfinite(torch.nn.utils.get_total_norm(floats)))


def shape_fingerprint(model: nn.Module) -> str:
    """Return a short text that differs for networks with other names or shapes of tensors."""
    table = [f"{name} {list(t.shape)}" for name, t in live(model).items()]
    return f"{len(table)} tensors #{zlib.crc32(repr(table).encode()):08x}"


@contextmanager
def swapped(model: nn.Module, weights: Mapping[str, Tensor] | None) -> Iterator[None]:
    """Let the model have other weights inside the block; None changes nothing."""
    if weights is None:
        yield
        return
    own = copy_of(model)
    write(model, weights)
    try:
        yield
    finally:
        write(model, own)
