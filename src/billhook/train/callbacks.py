"""Callbacks: how a method acts during training, in `fit` or in anybody's own loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from billhook.errors import InputError
from billhook.graph.plan import Plan


@dataclass(frozen=True)
class StepContext:
    """What a callback may look at.

    Attributes:
        model: The network itself, never a wrapper of a training library.
        optimizer: The optimiser itself.
        step: Index of the present step from 0; after an epoch and at the end, of the last one.
        epoch: Index of the present epoch from 0.
        total_steps: Steps of the whole run.
        inputs, targets: The batch; None after an epoch and at the end.
        loss: None before the forward pass; in `loss_term` the loss so far; later the whole loss.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: int
    epoch: int
    total_steps: int
    inputs: Any = None
    targets: Any = None
    loss: Tensor | None = None


class Callback:
    """Base of methods that act during training; every method may be left out.

    Gradients in `after_backward` are those of one step, in true scale and before clipping (with 16-mixed
    they may overflow; the optimiser then skips the step). Weights may be changed in place in `before_step`
    and `after_step`. What a callback remembers belongs into `state_dict` (tensors, numbers, text, lists,
    dicts), so that an interrupted run resumes exactly.
    """

    def before_step(self, context: StepContext) -> None:
        """Act before the forward pass."""

    def loss_term(self, context: StepContext) -> Tensor | None:
        """Return a scalar that is added to the loss, or None."""
        return None

    def after_backward(self, context: StepContext) -> None:
        """Look at or change the gradients."""

    def after_step(self, context: StepContext) -> None:
        """Act after the optimiser's step."""

    def after_epoch(self, context: StepContext) -> None:
        """Act at the end of an epoch."""

    def finish(self, context: StepContext) -> Plan | None:
        """Return the plan that was decided, if any."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""


class CallbackDriver:
    """Drives callbacks from any loop; `fit` uses it too.

        driver = CallbackDriver(callbacks, model, optimizer, total_steps=len(loader) * epochs)
        with driver.attached():                                # act around backward and optimizer.step
            for inputs, targets in loader:
                driver.before_step(inputs, targets)
                loss = driver.add_terms(loss_function(model(inputs), targets))
                loss.backward(); optimizer.step(); optimizer.zero_grad()
            driver.after_epoch()
        plans = driver.finish()

    Without `attached`, call `after_backward` and `after_step` yourself.
    """

    def __init__(
        self,
        callbacks: Sequence[Callback],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        total_steps: int,
        step: int = 0,
        epoch: int = 0,
    ) -> None:
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise InputError(f"callback {callback!r} must be an instance of billhook.train.Callback")
        self.callbacks = tuple(callbacks)
        self.model = model
        self.optimizer = optimizer
        self.total_steps = total_steps
        self.step = step  # of the next `before_step`; the present step is one less
        self.epoch = epoch
        self._batch: tuple[Any, Any] = (None, None)
        self._loss: Tensor | None = None

    def before_step(self, inputs: Any, targets: Any) -> None:
        """Begin a step."""
        self.step += 1
        self._batch, self._loss = (inputs, targets), None
        for callback in self.callbacks:
            callback.before_step(self._context())

    def add_terms(self, loss: Tensor) -> Tensor:
        """Return `loss` plus the terms of all callbacks."""
        self._loss = loss
        context = self._context()
        terms = [callback.loss_term(context) for callback in self.callbacks]
        for term in terms:
            loss = loss if term is None else loss + term
        self._loss = loss
        return loss

    def after_backward(self) -> None:
        """Tell the callbacks that the gradients are there."""
        for callback in self.callbacks:
            callback.after_backward(self._context())

    def after_step(self) -> None:
        """Tell the callbacks that the weights have moved."""
        for callback in self.callbacks:
            callback.after_step(self._context())
        self._batch, self._loss = (None, None), None

    def after_epoch(self) -> None:
        """Tell the callbacks that an epoch is over."""
        for callback in self.callbacks:
            callback.after_epoch(self._context())
        self.epoch += 1

    def finish(self) -> tuple[Plan | None, ...]:
        """Return what each callback decided."""
        self.epoch = max(0, self.epoch - 1)
        return tuple(callback.finish(self._context()) for callback in self.callbacks)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Call `after_backward` and `after_step` around each step of the optimiser inside the block.

        With or without a closure, see `around_steps`.
        """
        with around_steps(self.optimizer, self.after_backward, self.after_step):
            yield

    def _context(self) -> StepContext:
        inputs, targets = self._batch
        step = max(0, self.step - 1)
        return StepContext(
            self.model, self.optimizer, step, self.epoch, self.total_steps, inputs, targets, self._loss
        )


@contextmanager
def around_steps(
    optimizer: torch.optim.Optimizer, after_backward: Callable[[], None], after_step: Callable[[], None]
) -> Iterator[None]:
    """Call two functions in each step of the optimiser inside the block: before the update and after it.

    Loops that hand a closure to `optimizer.step`, as Lightning's automatic optimisation does, are understood:
    the closure runs the backward pass, so `after_backward` follows it.
    """

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        own, *rest = args
        closure = kwargs.get("closure", rest[0] if rest else None)
        if closure is None:
            after_backward()
            return None

        def with_backward() -> Any:
            result = closure()
            after_backward()
            return result

        return (own,), {**kwargs, "closure": with_backward}

    pre = optimizer.register_step_pre_hook(before)
    post = optimizer.register_step_post_hook(lambda *_: after_step())
    try:
        yield
    finally:
        pre.remove()
        post.remove()
