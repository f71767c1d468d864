"""First-order saliency from calibration data: Σ weight · gradient along the axes that groups own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from billhook.criteria._base import Axis, Calibration, Loss
from billhook.criteria._members import others
from billhook.errors import InputError
from billhook.graph.alive import holding
from billhook.graph.inputs import as_call
from billhook.graph.slicing import named_tensors


def saliency(
    model: nn.Module, axes: Sequence[Axis], calibration: Calibration, *, batches: int, seed: int = 0
) -> dict[Axis, Tensor]:
    """Return Σ weight · ∂loss/∂weight for every index of the given axes and every batch.

    To first order, the loss changes by minus such a sum when the weights it runs over become zero. Sums
    along an axis are kept instead of gradients, so memory is that of one backward pass plus a few numbers
    per channel, and any grouping of channels can be read from them afterwards.

    The model runs in eval mode, one forward and backward pass per batch. Weights, gradients, buffers,
    train/eval modes and the random state are left as they were.

    Args:
        model: On any device; batches are moved there.
        axes: (tensor name, axis) pairs of parameters.
        calibration: Batches and loss.
        batches: Use at most this many.
        seed: Of the random state during the passes, so that a shuffling loader gives the same batches again.
    Returns:
        {(tensor, axis): [batches, n] float32}.
    Raises:
        InputError: if there are no batches, a batch is not a pair, or the loss is not a finite scalar.
    """
    wanted: dict[str, list[int]] = {}
    for tensor, axis in axes:
        wanted.setdefault(tensor, []).append(axis)
    rows: dict[Axis, list[Tensor]] = {a: [] for a in axes}
    with _untouched(model, seed):
        used = islice(calibration.batches, batches)
        for weights, gradients in _gradients(model, list(wanted), used, calibration.loss):
            for name, gradient in gradients.items():
                product = weights[name].detach() * gradient
                for axis in wanted[name]:
                    rows[name, axis].append(product.sum(others(product, axis), dtype=torch.float32))
    if not all(rows.values()):
        raise InputError("the calibration data holds no batch; give data=[(inputs, targets), …]")
    return {a: torch.stack(r) for a, r in rows.items()}


def _gradients(
    model: nn.Module, names: Sequence[str], batches: Iterable[Any], loss: Loss
) -> Iterator[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]:
    """Yield (tensors, gradients) by name for each batch; `.grad` of parameters is not touched."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    tensors = dict(named_tensors(model))
    sources = [tensors[n] for n in names]
    for number, batch in enumerate(batches):
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            found = type(batch).__name__
            raise InputError(f"calibration batch {number} is a {found}; expected a pair (inputs, targets)")
        inputs, targets = _move(batch, device)
        args, kwargs = as_call(inputs)
        # Some modules write to their buffers even in eval mode.
        buffers = {n: b.detach().clone() for n, b in model.named_buffers()}
        with holding(model, buffers), _differentiable(tensors.values(), sources):
            value = loss(model(*args, **kwargs), targets)
            _check_loss(value, number)
            gradients = torch.autograd.grad(value, sources, allow_unused=True, materialize_grads=True)
        yield tensors, dict(zip(names, gradients, strict=True))


@contextmanager
def _differentiable(tensors: Iterable[Tensor], sources: Sequence[Tensor]) -> Iterator[None]:
    """Let exactly `sources` require gradients for a while."""
    before = {id(t): (t, t.requires_grad) for t in tensors if t.is_floating_point()}
    wanted = {id(t) for t in sources}
    for tensor, _ in before.values():
        tensor.requires_grad_(id(tensor) in wanted)
    try:
        yield
    finally:
        for tensor, required in before.values():
            tensor.requires_grad_(required)


def _check_loss(value: object, number: int) -> None:
    where = f"the loss of calibration batch {number}"
    if not isinstance(value, Tensor) or value.dim() or not torch.isfinite(value):
        shape = f" of shape {list(value.shape)}" if isinstance(value, Tensor) and value.dim() else f" {value}"
        raise InputError(f"{where} must be one finite number, not a {type(value).__name__}{shape}")
    if not value.requires_grad:
        raise InputError(f"{where} does not depend on the weights; does forward detach its outputs?")


def _move(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {k: _move(v, device) for k, v in value.items()}
    return type(value)(_move(v, device) for v in value) if type(value) in (tuple, list) else value


@contextmanager
def _untouched(model: nn.Module, seed: int) -> Iterator[None]:
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
