"""Device, memory layout and mode of a network for the time of a block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def mode_kept(*models: nn.Module | None) -> Iterator[None]:
    """Give every module its own train or eval mode back after the block."""
    modes = {module: module.training for model in models if model is not None for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def placed(model: nn.Module | None, device: torch.device) -> Iterator[None]:
    """Move the model to `device` and, after the block, back to where it was."""
    home = device if model is None else device_of(model)
    if model is None or home == device:
        yield
        return
    model.to(device)
    try:
        yield
    finally:
        model.to(home)


@contextmanager
def channels_last(model: nn.Module | None, enabled: bool = True) -> Iterator[None]:
    """Lay the weights of 2-d convolutions out as channels last, and plainly again after the block."""
    layers = [] if model is None or not enabled else list(_plain_convolutions(model))
    for weight in layers:
        # Not `contiguous`: it leaves a weight of one input channel as it is, and the whole network would
        # then run in the plain layout (measured: a quarter slower).
        weight.data = weight.data.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        for weight in layers:  # a plain layout is what safetensors and exporters expect
            weight.data = weight.data.to(memory_format=torch.contiguous_format)


def as_channels_last(inputs: Any) -> Any:
    """Return `inputs` with every 4-d tensor in it laid out as channels last."""
    if isinstance(inputs, Tensor):
        return inputs.to(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs
    if isinstance(inputs, Mapping):
        return {name: as_channels_last(value) for name, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return tuple(as_channels_last(value) for value in inputs)
    return inputs


def to_device(value: Any, device: torch.device) -> Any:
    """Return `value` with every tensor in nested tuples, lists and dicts on `device`."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {name: to_device(v, device) for name, v in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(to_device(v, device) for v in value)
    return value


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter or buffer; the CPU if it has none."""
    first = next(iter(model.parameters()), next(iter(model.buffers()), None))
    return torch.device("cpu") if first is None else first.device


def _plain_convolutions(model: nn.Module) -> Iterator[nn.Parameter]:
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            weight = dict(module.named_parameters(recurse=False)).get("weight")
            if weight is not None and weight.is_contiguous():
                yield weight
