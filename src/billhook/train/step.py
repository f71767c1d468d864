"""One step of training: forward, loss, backward, update."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from billhook.errors import InputError
from billhook.graph.inputs import as_call
from billhook.train.callbacks import CallbackDriver
from billhook.train.ema import Ema
from billhook.train.fabric import Engine
from billhook.train.job import Job
from billhook.train.losses import check_classification, cross_entropy, distillation
from billhook.train.optimizer import load_optimizer_state, make_optimizer
from billhook.train.placement import as_channels_last, to_device


class Stepper:
    """Network, optimiser, average and callbacks: all that a step changes."""

    def __init__(self, engine: Engine, job: Job, total_steps: int) -> None:
        self.engine, self.job, self.config = engine, job, job.config
        self.model = job.model
        self.optimizer = make_optimizer(job.model, job.config)
        self.network, self._update = engine.setup(job.model, self.optimizer)
        self.driver = CallbackDriver(job.callbacks, job.model, self.optimizer, total_steps=total_steps)
        self.ema = Ema(job.model, job.config.ema) if job.config.ema else None
        self._loss = job.loss or partial(cross_entropy, label_smoothing=job.config.label_smoothing)
        self._checked = False
        self.loss: Tensor | None = None  # of the step that is being made, once it is known

    def __call__(self, inputs: Any, targets: Any, lr: float) -> Tensor:
        """Make one step; returns the loss, still on its device."""
        config = self.config
        inputs, targets = to_device(inputs, self.engine.device), to_device(targets, self.engine.device)
        if config.channels_last:
            inputs = as_channels_last(inputs)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        self.loss = None
        self.driver.before_step(inputs, targets)
        loss = self.driver.add_terms(self._forward(inputs, targets))
        self.loss = loss.detach()
        self.engine.backward(loss, self.optimizer)
        self.driver.after_backward()
        if config.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self._update()
        self.driver.after_step()
        if self.ema is not None:
            self.ema.update(self.model)
        return self.loss

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "precision": self.engine.precision_state(),
            "callbacks": [callback.state_dict() for callback in self.job.callbacks],
        }

    def load_state_dict(self, state: dict[str, Any], step: int, epoch: int) -> None:
        """Go on where `state` was taken, after `step` steps."""
        self.model.load_state_dict(state["model"])
        load_optimizer_state(self.optimizer, state["optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.engine.load_precision_state(state["precision"])
        for callback, saved in zip(self.job.callbacks, state["callbacks"], strict=True):
            callback.load_state_dict(saved)
        self.driver.step, self.driver.epoch = step, epoch

    def _forward(self, inputs: Any, targets: Any) -> Tensor:
        args, kwargs = as_call(inputs)
        outputs = self._select(self.network(*args, **kwargs))
        if not self._checked and self.job.loss is None:
            check_classification(outputs, targets)
        loss = self._loss(outputs, targets)
        if not self._checked:
            self._checked = _check_scalar(loss)
        if self.job.teacher is None:
            return loss
        with torch.no_grad(), self.engine.autocast():
            answers = self._select(self.job.teacher(*args, **kwargs))
        weight = self.config.distill
        return (1 - weight) * loss + weight * distillation(outputs, answers, self.config.temperature)

    def _select(self, outputs: Any) -> Any:
        return outputs if self.job.output is None else self.job.output(outputs)


def _check_scalar(loss: Any) -> bool:
    if not isinstance(loss, Tensor) or loss.dim():
        what = (
            f"a tensor of shape {list(loss.shape)}"
            if isinstance(loss, Tensor)
            else f"a {type(loss).__name__}"
        )
        raise InputError(f"loss(outputs, targets) must return a scalar tensor, not {what}; take the mean?")
    return True
