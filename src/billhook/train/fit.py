"""`fit`: train, fine-tune or distil a network."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from billhook.errors import InputError
from billhook.graph.plan import Plan
from billhook.train.batches import Batches, as_batches
from billhook.train.callbacks import Callback
from billhook.train.checkpoint import load_checkpoint, require_free, require_same_run, save_checkpoint
from billhook.train.config import FitConfig
from billhook.train.evaluate import evaluate
from billhook.train.fabric import Engine, launch
from billhook.train.job import Job, Loss, Output, Validate
from billhook.train.loop import Run
from billhook.train.placement import channels_last, mode_kept, placed
from billhook.train.precision import resolve_precision
from billhook.train.progress import Reporter
from billhook.train.result import EpochRecord, FitResult
from billhook.train.rng import derive_seed, preserved_rng, seed_rng
from billhook.train.weights import copy_of, live, write


def fit(
    model: nn.Module,
    batches: Any,
    *,
    config: FitConfig | None = None,
    loss: Loss | None = None,
    output: Output | None = None,
    validate: Batches | Validate | Iterable[Any] | None = None,
    teacher: nn.Module | None = None,
    callbacks: Iterable[Callback] = (),
    checkpoint_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> FitResult:
    """Train `model` in place; at the end it holds the last (or, with EMA, the averaged) weights.

    The caller's random state, the model's device, memory layout and modes are as before afterwards. A run
    that was interrupted at any step and resumed gives the same weights, bit by bit, as one that was not
    (same machine, threads and precision).

    With `devices` above 1 processes are spawned, so model, batches, losses and callbacks must be picklable
    and the script needs its `if __name__ == "__main__"`; "ddp-fork" needs neither but cannot be used once
    CUDA is in use; under torchrun its processes are used. The steps of an epoch are then divided by the
    number of processes, and the learning rate is not scaled.

    Args:
        model: Network with trainable parameters.
        batches: A `Batches`, a DataLoader or a list of (inputs, targets); inputs are a tensor, a tuple or a
            dict of arguments.
        config: Optimiser, schedule, precision, …; None: the defaults.
        loss: `loss(outputs, targets)`, a scalar; None: cross-entropy with label smoothing.
        output: Takes the logits out of what model and teacher return, e.g. `lambda result: result.logits`.
        validate: Held-out batches (accuracy and loss are recorded), or a function from model to metrics; run
            after every epoch, with the averaged weights if there are any.
        teacher: Network whose answers are distilled, usually the uncompressed one; it is not changed.
        callbacks: Methods that act during training.
        checkpoint_dir: Where checkpoints go; None: nowhere. One file, replaced each time.
        resume: Go on from the checkpoint in `checkpoint_dir`; without one, begin at the beginning.
        progress: Show a bar on stderr if it is a terminal, and log the epochs.
    Returns:
        History, time and plans.
    Raises:
        InputError: for arguments that do not fit together, and for a checkpoint of another run.
        DivergedError: if the loss becomes NaN or infinite; the model then holds its last good weights.
        StorageError: if a checkpoint cannot be read or written; the one before is kept.
        MissingExtraError: if Lightning Fabric is not installed.
    """
    config = config or FitConfig()
    config = replace(config, precision=resolve_precision(config.precision, config.accelerator))
    if resume and checkpoint_dir is None:
        raise InputError("resume=True needs checkpoint_dir, the directory of the run to go on with")
    if teacher is model:
        raise InputError("the teacher is the model itself; give a copy of the network before compression")
    if validate is not None and not callable(validate):
        validate = partial(
            _accuracy, batches=as_batches(validate), precision=config.precision, loss=loss, output=output
        )
    with TemporaryDirectory() as exchange:
        job = Job(
            model=model,
            batches=as_batches(batches, config.seed),
            config=config,
            loss=loss,
            output=output,
            validate=validate,
            teacher=teacher,
            callbacks=tuple(callbacks),
            directory=None if checkpoint_dir is None else Path(checkpoint_dir),
            resume=resume,
            progress=progress,
            pid=os.getpid(),
            exchange=Path(exchange),
        )
        result = launch(config, _train, job)
        return result if result is not None else _receive(job)


def _train(engine: Engine, job: Job) -> FitResult | None:
    """Run the job in this process; a process other than the caller's leaves the outcome in `exchange`."""
    if os.getpid() != job.pid:
        # Tensors that are sent to a process stay shared with all others, which would train them together.
        model, teacher, callbacks = deepcopy((job.model, job.teacher, job.callbacks))
        job = replace(job, model=model, teacher=teacher, callbacks=callbacks)
    state = _checkpoint(job)
    with ExitStack() as stack:
        stack.enter_context(preserved_rng(engine.device))
        for network in (job.model, job.teacher):
            stack.enter_context(mode_kept(network))
            stack.enter_context(placed(network, engine.device))
            stack.enter_context(channels_last(network, job.config.channels_last))
        if job.teacher is not None:
            job.teacher.eval()
        seed_rng(derive_seed(job.config.seed, engine.rank), engine.device)
        run = Run(engine, job)
        if state is not None and job.directory is not None:
            require_same_run(job.directory, state["identity"], run.identity())
            run.load_state_dict(state)
        shown = job.progress and engine.rank == 0
        try:
            with Reporter(run.total, run.step, run.epochs, enabled=shown) as reporter:
                run.train(reporter)
        finally:
            run.stepper.optimizer.zero_grad()
        if run.stepper.ema is not None:
            write(job.model, run.stepper.ema.weights)
        result = FitResult(
            steps=run.step,
            loss=run.history[-1].loss,
            seconds=run.seconds,
            history=tuple(run.history),
            plans=run.stepper.driver.finish(),
            precision=job.config.precision,
            resumed_from=None if state is None else state["step"],
        )
    if os.getpid() == job.pid:
        return result
    if engine.rank == 0:
        _send(job, result)
    return None


def _checkpoint(job: Job) -> dict[str, Any] | None:
    if job.directory is None:
        return None
    if job.resume:
        return load_checkpoint(job.directory)
    require_free(job.directory)
    return None


def _accuracy(
    model: nn.Module, *, batches: Batches, precision: str, loss: Loss | None, output: Output | None
) -> dict[str, float]:
    found = evaluate(model, batches, precision=precision, loss=loss, output=output)
    return {"accuracy": found.accuracy, "loss": found.loss}


def _send(job: Job, result: FitResult) -> None:
    """Leave the outcome for the process that called `fit`: a queue between processes would need a pickle."""
    state = {
        "weights": copy_of(job.model),
        "callbacks": [callback.state_dict() for callback in job.callbacks],
        "plans": [None if plan is None else plan.to_json() for plan in result.plans],
        "history": [record.to_dict() for record in result.history],
        "rest": {"steps": result.steps, "loss": result.loss, "seconds": result.seconds},
        "precision": result.precision,
        "resumed_from": result.resumed_from,
    }
    save_checkpoint(job.exchange, state)


def _receive(job: Job) -> FitResult:
    state = load_checkpoint(job.exchange)
    assert state is not None
    for tensor in live(job.model).values():
        tensor.data = tensor.data.clone()  # leave the shared memory
    write(job.model, state["weights"])
    for callback, saved in zip(job.callbacks, state["callbacks"], strict=True):
        callback.load_state_dict(saved)
    return FitResult(
        **state["rest"],
        history=tuple(EpochRecord(**record) for record in state["history"]),
        plans=tuple(None if text is None else Plan.from_json(text) for text in state["plans"]),
        precision=state["precision"],
        resumed_from=state["resumed_from"],
    )
