"""Gradients of single weights from calibration data: their mean, their mean square, and H · g.

The model runs in eval mode and is left as it was; see `_passes`. Results have the shapes of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from billhook.criteria._base import Calibration
from billhook.criteria._passes import batch_size, loss_of, outputs_of, pairs, part, recording, untouched
from billhook.errors import InputError

Sums = dict[str, Tensor]


def mean_gradients(
    model: nn.Module, names: Sequence[str], calibration: Calibration, *, batches: int, seed: int = 0
) -> Sums:
    """Return the gradient of the mean loss over samples, for losses that are means over a batch."""
    sums: Sums = {}
    samples = 0
    with untouched(model, seed):
        for number, inputs, targets in pairs(model, calibration, batches):
            with recording(model, names) as sources:
                value = loss_of(calibration.loss, outputs_of(model, inputs), targets, number)
                gradients = _gradients(value, sources)
            count = batch_size(inputs)
            _add(sums, names, [count * g.float() for g in gradients])
            samples += count
    return {name: total / samples for name, total in sums.items()}


def mean_squared_gradients(
    model: nn.Module,
    names: Sequence[str],
    calibration: Calibration,
    *,
    batches: int,
    seed: int = 0,
    by_sample: bool = True,
) -> Sums:
    """Return E[g²], with g of single samples, or with √n · g of batches of n samples."""
    sums: Sums = {}
    samples = 0
    with untouched(model, seed):
        for number, inputs, targets in pairs(model, calibration, batches):
            count = batch_size(inputs)
            for one in _parts(inputs, targets, count if by_sample else 1):
                with recording(model, names) as sources:
                    value = loss_of(calibration.loss, outputs_of(model, one[0]), one[1], number)
                    gradients = _gradients(value, sources)
                # A batch counts n times, for its n samples, and the square of its mean gradient n times more.
                factor = 1 if by_sample else count**2
                _add(sums, names, [factor * g.float().square() for g in gradients])
            samples += count
    return {name: total / samples for name, total in sums.items()}


def hessian_times_gradient(
    model: nn.Module,
    names: Sequence[str],
    calibration: Calibration,
    *,
    batches: int,
    seed: int = 0,
    temperature: float = 1.0,
) -> Sums:
    """Return H · g of the summed losses of the halves of all batches; keeps the batches in memory.

    Raises:
        InputError: if the outputs are no tensor, which has no temperature, or an operator of the model has no
            second derivative.
    """
    with untouched(model, seed), _SmoothTwice(), sdpa_kernel(SDPBackend.MATH), _second_derivatives():
        # A list, because a loader may give other batches when it is asked again.
        halves = [
            (number, half)
            for number, inputs, targets in pairs(model, calibration, batches)
            for half in _parts(inputs, targets, 2)
        ]
        gradient: Sums = {}
        product: Sums = {}
        for result in (gradient, product):
            for number, (inputs, targets) in halves:
                with recording(model, names) as sources:
                    outputs = _cooled(outputs_of(model, inputs), temperature)
                    value = loss_of(calibration.loss, outputs, targets, number)
                    if result is gradient:
                        found = _gradients(value, sources)
                    else:
                        found = _gradients(
                            _dot(_gradients(value, sources, twice=True), gradient, names), sources
                        )
                _add(result, names, found)
    return product


class _SmoothTwice(TorchFunctionMode):
    """Writes out the one common function that PyTorch can differentiate only once."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.hardsigmoid:
            return functional.relu6((args[0] if args else kwargs["input"]) + 3) / 6
        return func(*args, **kwargs)


@contextmanager
def _second_derivatives() -> Iterator[None]:
    """Say what to do about operators that cannot be differentiated twice."""
    try:
        yield
    except RuntimeError as e:
        if not any(text in str(e) for text in ("derivative for", "differentiate twice")):
            raise
        raise InputError(
            f"the model cannot be differentiated twice ({str(e).strip()}); choose a criterion that needs "
            "first derivatives only"
        ) from e


def _gradients(value: Tensor, sources: Sequence[Tensor], *, twice: bool = False) -> tuple[Tensor, ...]:
    if not value.requires_grad:  # a loss that is linear in the weights has no second derivative
        return tuple(torch.zeros_like(s) for s in sources)
    return torch.autograd.grad(value, sources, create_graph=twice, allow_unused=True, materialize_grads=True)


def _dot(gradients: Sequence[Tensor], fixed: Sums, names: Sequence[str]) -> Tensor:
    terms = [(g * fixed[name]).sum() for name, g in zip(names, gradients, strict=True)]
    return sum(terms[1:], terms[0])


def _add(sums: Sums, names: Sequence[str], values: Sequence[Tensor]) -> None:
    for name, value in zip(names, values, strict=True):
        sums[name] = sums[name] + value.detach() if name in sums else value.detach()


def _parts(inputs: Any, targets: Any, count: int) -> list[tuple[Any, Any]]:
    """Return a batch in `count` parts of about the same size, fewer if it has fewer samples."""
    samples = batch_size(inputs)
    count = max(1, min(count, samples))
    edges = [samples * i // count for i in range(count + 1)]
    pieces = [slice(a, b) for a, b in pairwise(edges)]
    return [(part(inputs, p, samples), part(targets, p, samples)) for p in pieces]


def _cooled(outputs: Any, temperature: float) -> Any:
    if temperature == 1:
        return outputs
    if not isinstance(outputs, Tensor):
        raise InputError(
            f"a temperature divides a tensor of logits, not a {type(outputs).__name__}; set temperature=1"
        )
    return outputs / temperature
