"""Training, fine-tuning and distillation, with callbacks that can decide a plan."""

from __future__ import annotations

from billhook.errors import DivergedError
from billhook.train.batches import Batches, IterableBatches, as_batches
from billhook.train.batchnorm import recalibrate_batchnorm
from billhook.train.callbacks import Callback, CallbackDriver, StepContext
from billhook.train.config import FitConfig
from billhook.train.evaluate import evaluate
from billhook.train.fit import fit
from billhook.train.holding import HoldPatterns, holding
from billhook.train.isometry import JacobianSingularValues, isometric_lr, mean_jsv
from billhook.train.result import EpochRecord, EvalResult, FitResult
from billhook.train.schedule import learning_rate, stages

__all__ = [
    "Batches",
    "Callback",
    "CallbackDriver",
    "DivergedError",
    "EpochRecord",
    "EvalResult",
    "FitConfig",
    "FitResult",
    "HoldPatterns",
    "IterableBatches",
    "JacobianSingularValues",
    "StepContext",
    "as_batches",
    "evaluate",
    "fit",
    "holding",
    "isometric_lr",
    "learning_rate",
    "mean_jsv",
    "recalibrate_batchnorm",
    "stages",
]
