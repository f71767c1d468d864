"""Passes over calibration data that leave the network as it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from billhook.criteria._base import Calibration, Loss
from billhook.errors import InputError
from billhook.graph.alive import holding
from billhook.graph.inputs import as_call, tensors
from billhook.graph.slicing import named_tensors


def needed(calibration: Calibration | None, name: str) -> Calibration:
    """Return `calibration`; raises `InputError` for criterion `name` if there is none."""
    if calibration is None:
        raise InputError(f"criterion {name!r} learns from data; give data=[(inputs, targets), …]")
    return calibration


def pairs(model: nn.Module, calibration: Calibration, batches: int) -> Iterator[tuple[int, Any, Any]]:
    """Yield (number, inputs, targets) of at most `batches` batches, on the model's device.

    Raises:
        InputError: if a batch is not a pair, or there is none.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    number = -1
    for number, batch in enumerate(islice(calibration.batches, batches)):
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            found = type(batch).__name__
            raise InputError(f"calibration batch {number} is a {found}; expected a pair (inputs, targets)")
        inputs, targets = _move(batch, device)
        yield number, inputs, targets
    if number < 0:
        raise InputError("the calibration data holds no batch; give data=[(inputs, targets), …]")


def batch_size(inputs: Any) -> int:
    """Return the number of samples: the length of the first tensor that has a first dimension."""
    return next((len(t) for t in tensors(inputs) if t.dim()), 1)


def part(value: Any, samples: slice, of: int) -> Any:
    """Return some samples of a batch of size `of`; what has no such first dimension stays whole."""
    if isinstance(value, Tensor):
        return value[samples] if value.dim() and len(value) == of else value
    if isinstance(value, Mapping):
        return {k: part(v, samples, of) for k, v in value.items()}
    return type(value)(part(v, samples, of) for v in value) if type(value) in (tuple, list) else value


def outputs_of(model: nn.Module, inputs: Any) -> Any:
    """Return what the model makes of `inputs`, in the form that calibration data has."""
    args, kwargs = as_call(inputs)
    return model(*args, **kwargs)


def loss_of(loss: Loss, outputs: Any, targets: Any, number: int) -> Tensor:
    """Return the loss of batch `number`.

    Raises:
        InputError: if it is not a finite scalar, or depends on nothing that has a gradient.
    """
    value = loss(outputs, targets)
    where = f"the loss of calibration batch {number}"
    if not isinstance(value, Tensor) or value.dim() or not torch.isfinite(value):
        shape = f" of shape {list(value.shape)}" if isinstance(value, Tensor) and value.dim() else f" {value}"
        raise InputError(f"{where} must be one finite number, not a {type(value).__name__}{shape}")
    if not value.requires_grad:
        raise InputError(f"{where} does not depend on the weights; does forward detach its outputs?")
    return value


@contextmanager
def untouched(model: nn.Module, seed: int) -> Iterator[None]:
    """Put `model` in eval mode with gradients on and a seeded random state; put everything back."""
    modes = {m: m.training for m in model.modules()}
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
        # `torch.manual_seed` would also seed devices that nobody puts back.
        for generator in (torch.default_generator, *(torch.cuda.default_generators[d] for d in devices)):
            generator.manual_seed(seed)
        model.eval()
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training


@contextmanager
def recording(model: nn.Module, names: Sequence[str] = ()) -> Iterator[list[Tensor]]:
    """Give the tensors called `names`, which alone require gradients meanwhile; buffers are put back.

    Backward passes belong inside. `.grad` of parameters is not touched by `torch.autograd.grad`.
    """
    named = dict(named_tensors(model))
    sources = [named[n] for n in names]
    # Some modules write to their buffers even in eval mode.
    buffers = {n: b.detach().clone() for n, b in model.named_buffers()}
    with holding(model, buffers), _differentiable(named.values(), sources):
        yield sources


@contextmanager
def _differentiable(all_tensors: Iterable[Tensor], sources: Sequence[Tensor]) -> Iterator[None]:
    """Let exactly `sources` require gradients for a while."""
    before = {id(t): (t, t.requires_grad) for t in all_tensors if t.is_floating_point()}
    wanted = {id(t) for t in sources}
    for tensor, _ in before.values():
        tensor.requires_grad_(id(tensor) in wanted)
    try:
        yield
    finally:
        for tensor, required in before.values():
            tensor.requires_grad_(required)


def _move(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {k: _move(v, device) for k, v in value.items()}
    return type(value)(_move(v, device) for v in value) if type(value) in (tuple, list) else value
