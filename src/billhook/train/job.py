"""What `fit` was asked to do, in one object that can be sent to another process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from billhook.train.batches import Batches
from billhook.train.callbacks import Callback
from billhook.train.config import FitConfig

Loss = Callable[[Any, Any], Tensor]
Output = Callable[[Any], Any]
Validate = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True)
class Job:
    """The arguments of `fit`, checked; see there.

    Attributes:
        pid: The process that called `fit`.
        exchange: Empty directory where another process leaves the outcome for it.
    """

    model: nn.Module
    batches: Batches
    config: FitConfig
    loss: Loss | None
    output: Output | None
    validate: Validate | None
    teacher: nn.Module | None
    callbacks: tuple[Callback, ...]
    directory: Path | None
    resume: bool
    progress: bool
    pid: int
    exchange: Path
