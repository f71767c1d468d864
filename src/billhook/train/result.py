"""What training and evaluation hand back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from billhook.graph.plan import Plan


@dataclass(frozen=True)
class EpochRecord:
    """One pass over the data.

    Attributes:
        epoch: Index from 0.
        steps: Optimiser steps in it.
        loss: Mean training loss, all terms included.
        lr: Learning rate of its last step.
        seconds: Time it took, validation included; of a resumed epoch, all its parts.
        metrics: What `validate` returned.
    """

    epoch: int
    steps: int
    loss: float
    lr: float
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "metrics": dict(self.metrics)}


@dataclass(frozen=True)
class FitResult:
    """Outcome of `fit`; the trained weights are in the model itself.

    Attributes:
        steps: Optimiser steps made, over all interruptions.
        loss: Mean training loss of the last epoch.
        seconds: Time spent, over all interruptions.
        history: One record per epoch.
        plans: What each callback decided, in their order.
        precision: Arithmetic that was used.
        resumed_from: Step of the checkpoint that the run went on from; None if it began at the beginning.
    """

    steps: int
    loss: float
    seconds: float
    history: tuple[EpochRecord, ...]
    plans: tuple[Plan | None, ...]
    precision: str
    resumed_from: int | None = None

    @property
    def plan(self) -> Plan | None:
        """The first plan that a callback decided."""
        return next((p for p in self.plans if p is not None), None)

    @property
    def metrics(self) -> Mapping[str, float]:
        """What `validate` returned after the last epoch."""
        return self.history[-1].metrics if self.history else {}


@dataclass(frozen=True)
class EvalResult:
    """Outcome of `evaluate`.

    Attributes:
        accuracy: Fraction of the samples (for dense outputs: positions) whose largest logit is the target.
        loss: Mean loss.
        samples: How many samples (positions) were judged.
    """

    accuracy: float
    loss: float
    samples: int
