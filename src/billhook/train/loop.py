"""The training loop: epochs, losses, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch

from billhook.errors import BillhookError, DataError, DivergedError, InputError
from billhook.train.batches import Batch, batch_size, unpack
from billhook.train.checkpoint import Cadence, save_checkpoint
from billhook.train.divergence import GoodWeights, LossWindow, first_bad
from billhook.train.fabric import Engine
from billhook.train.job import Job
from billhook.train.placement import mode_kept
from billhook.train.progress import Reporter
from billhook.train.result import EpochRecord
from billhook.train.rng import preserved_rng, rng_state, set_rng_state
from billhook.train.schedule import learning_rate
from billhook.train.step import Stepper
from billhook.train.weights import shape_fingerprint, swapped


class Run:
    """One training run, as one process sees it; `step` counts the steps that are done."""

    def __init__(self, engine: Engine, job: Job) -> None:
        self.engine, self.job, self.config = engine, job, job.config
        self._stride = 1 if getattr(job.batches, "sharded", False) else engine.world
        self.per_epoch = len(job.batches) // self._stride
        if not self.per_epoch:
            raise InputError(
                f"an epoch of {len(job.batches)} batches is too short for {engine.world} process(es)"
            )
        self.total = self.config.steps or self.config.epochs * self.per_epoch
        self.epochs = -(-self.total // self.per_epoch)
        self.stepper = Stepper(engine, job, self.total)
        self.step = 0
        self.history: list[EpochRecord] = []
        self._epoch_loss = 0.0  # sum over the steps of the present epoch
        self._epoch_began = 0.0  # on the clock of `seconds`
        self._started = time.perf_counter()
        self._window = LossWindow(self.config.log_every, engine.device)
        self._cadence = Cadence(self.config.checkpoint_steps, self.config.checkpoint_seconds)
        self._saved_step: int | None = None

    @property
    def seconds(self) -> float:
        """Time spent in this run, over all interruptions."""
        return time.perf_counter() - self._started

    def train(self, reporter: Reporter) -> None:
        """Make all steps that are left.

        Raises:
            DivergedError: if the loss becomes NaN or infinite.
            DataError: if an epoch is shorter than promised.
        """
        self._good = GoodWeights(self.job.model, self.step)
        while self.step < self.total:
            self._train_epoch(self.step // self.per_epoch, reporter)
        self._save()

    def _train_epoch(self, epoch: int, reporter: Reporter) -> None:
        self.stepper.network.train()
        last = min(self.total, (epoch + 1) * self.per_epoch)
        for inputs, targets in self._batches(epoch):
            lr = self._lr(self.step)
            self._window.add(self._make_step(inputs, targets, lr))
            self.step += 1
            reporter.step(batch_size(inputs) * self.engine.world)
            if self._window.full or self.step == last:
                reporter.figures(self._read_losses(), lr)
                self._good.keep(self.job.model, self.step)
            if self.step == last:
                reporter.epoch(self._close_epoch(epoch, lr))
            if self.job.directory is not None and self.engine.agree(self._cadence.due(self.step)):
                self._save()
            if self.step == last:
                return
        done, promised = (s - epoch * self.per_epoch for s in (self.step, last))
        raise DataError(
            f"epoch {epoch} ended after {done} of {promised} batches; "
            "len(batches) promises more than epoch() gives"
        )

    def _make_step(self, inputs: Any, targets: Any, lr: float) -> torch.Tensor:
        try:
            return self.stepper(inputs, targets, lr)
        except BillhookError:
            # A callback may stumble over NaN before the losses are looked at: then that is what went wrong.
            if self.stepper.loss is not None:
                self._window.add(self.stepper.loss)
                self.step += 1
            self._read_losses()
            raise

    def _batches(self, epoch: int) -> Iterator[Batch]:
        start = self.step % self.per_epoch
        batches = self.job.batches.epoch(epoch, start * self._stride)
        first = self.engine.rank if self._stride > 1 else 0
        return map(unpack, islice(batches, first, None, self._stride))

    def _lr(self, step: int) -> float:
        c = self.config
        return learning_rate(step, self.total, peak=c.lr, schedule=c.schedule, warmup=c.warmup_fraction)

    def _read_losses(self) -> float:
        losses = self._window.read()
        bad = first_bad(losses)
        if bad is not None:
            self._good.restore(self.job.model)
            step = self.step - len(losses) + bad
            raise DivergedError(step, self._lr(step), losses[bad], self._good.step)
        for loss in losses:  # one by one, so that the sum does not depend on when it was read
            self._epoch_loss += loss
        return sum(losses) / max(1, len(losses))

    def _close_epoch(self, epoch: int, lr: float) -> EpochRecord:
        self.stepper.driver.after_epoch()
        metrics: dict[str, float] = {}
        model, ema = self.job.model, self.stepper.ema
        if self.job.validate is not None and self.engine.rank == 0:
            weights = None if ema is None else ema.weights
            with preserved_rng(self.engine.device), mode_kept(model), swapped(model, weights):
                model.eval()
                metrics = {name: float(value) for name, value in self.job.validate(model).items()}
        metrics = self.engine.agree(metrics)
        steps = self.step - epoch * self.per_epoch
        mean = self.engine.gather(torch.tensor(self._epoch_loss / steps, dtype=torch.float64)).mean()
        seconds = self.seconds
        record = EpochRecord(epoch, steps, float(mean), lr, seconds - self._epoch_began, metrics)
        self.history.append(record)
        self._epoch_loss, self._epoch_began = 0.0, seconds
        return record

    def _save(self) -> None:
        """Write a checkpoint; with DDP all processes take part, and rank 0 writes."""
        if self.job.directory is None or self._saved_step == self.step:
            return
        self._read_losses()
        state = self.state_dict()
        if self.engine.rank == 0:
            save_checkpoint(self.job.directory, state)
        self.engine.barrier()
        self._saved_step = self.step
        self._cadence.done()

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for a run to be resumed."""
        return {
            **self.config.identity(),
            "batches per epoch": len(self.job.batches),
            "processes": self.engine.world,
            "callbacks": [type(callback).__name__ for callback in self.job.callbacks],
            "teacher": self.job.teacher is not None,
            "network": shape_fingerprint(self.job.model),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `load_state_dict` needs to go on exactly; all processes must call it."""
        return {
            "identity": self.identity(),
            "step": self.step,
            "epoch_loss": self._epoch_loss,
            "epoch_began": self._epoch_began,
            "seconds": self.seconds,
            "history": [record.to_dict() for record in self.history],
            "stepper": self.stepper.state_dict(),
            "rng": {n: self.engine.gather(t) for n, t in rng_state(self.engine.device).items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.step = self._saved_step = state["step"]
        self._epoch_loss, self._epoch_began = state["epoch_loss"], state["epoch_began"]
        self._started = time.perf_counter() - state["seconds"]
        self.history = [EpochRecord(**record) for record in state["history"]]
        epoch = len(self.history)
        self.stepper.load_state_dict(state["stepper"], self.step, epoch)
        set_rng_state({n: t[self.engine.rank] for n, t in state["rng"].items()}, self.engine.device)
