"""`FitConfig`: everything about a training run that a recipe can say."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from billhook.errors import InputError
from billhook.options import Above, Configurable, Flag, Number, OneOf, OrNone, option

SCHEDULES = ("one-cycle", "cosine", "linear", "constant", "step")
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")


_COUNT = Number(1, integer=True)


@dataclass(frozen=True)
class FitConfig(Configurable):
    """How to train. The defaults train a small convolutional network from scratch at batch size 128.

    For fine-tuning a pruned network a tenth of `lr` is a good start. `precision="auto"` is bf16-mixed
    where the processor computes in bf16 (CUDA since Ampere, CPUs with AVX512-BF16 or AMX), else 32-true.
    """

    epochs: int = option(2, _COUNT, "passes over the data; ignored if steps is given")
    steps: int | None = option(None, OrNone(_COUNT), "optimiser steps in all, instead of epochs")
    optimizer: str = option("sgd", OneOf("sgd", "adamw"), "adamw takes momentum as its first beta")
    lr: float = option(0.2, Above(0), "peak learning rate")
    schedule: str = option("one-cycle", OneOf(*SCHEDULES), "course of the learning rate")
    warmup: float | None = option(
        None,
        OrNone(Number(0, 1)),
        "fraction of the steps with rising lr; None: 0.3 (one-cycle), 0.05 (cosine), 0",
    )
    momentum: float = option(0.9, Number(0, 0.9999), "momentum of SGD")
    nesterov: bool = option(True, Flag(), "Nesterov momentum (SGD)")
    weight_decay: float = option(5e-4, Number(0), "not applied to norm layers, biases and vectors")
    label_smoothing: float = option(0.1, Number(0, 1), "of the built-in cross-entropy")
    ema: float = option(0.0, Number(0, 0.99999), "decay of the averaged weights; 0 turns averaging off")
    distill: float = option(0.5, Number(0, 1), "weight of the teacher's answers, if there is a teacher")
    temperature: float = option(4.0, Above(0), "softens the teacher's answers")
    clip: float | None = option(None, OrNone(Above(0)), "largest norm of the gradient")
    precision: str = option("auto", OneOf(*PRECISIONS), "arithmetic of the forward and backward pass")
    accelerator: str = option("auto", OneOf("auto", "cpu", "cuda", "mps"), "kind of device")
    devices: int = option(1, _COUNT, "how many devices or processes; more than one means DDP")
    strategy: str = option("auto", OneOf("auto", "ddp", "ddp-fork"), "how processes are made; see `fit`")
    channels_last: bool = option(True, Flag(), "memory layout of convolutions; faster on CPU and GPU")
    seed: int = option(0, Number(0, 2**63 - 1, integer=True), "of everything random in the run")
    log_every: int = option(50, _COUNT, "steps between looks at the loss")
    checkpoint_steps: int | None = option(None, OrNone(_COUNT), "steps between checkpoints")
    checkpoint_seconds: float | None = option(60.0, OrNone(Above(0)), "seconds between checkpoints")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer == "sgd" and self.nesterov and self.momentum == 0:
            raise InputError(
                "FitConfig: nesterov=True needs momentum above 0; set momentum or nesterov=False"
            )

    @property
    def warmup_fraction(self) -> float:
        """Fraction of the steps during which the learning rate rises."""
        if self.warmup is not None:
            return self.warmup
        return {"one-cycle": 0.3, "cosine": 0.05}.get(self.schedule, 0.0)

    def identity(self) -> dict[str, Any]:
        """Return the fields which change the result; a run can only be resumed with the same ones."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _FREE}


# How often somebody looks, and where the work happens, may change between interruption and resume.
_FREE = {"log_every", "checkpoint_steps", "checkpoint_seconds", "accelerator", "devices", "strategy"}
