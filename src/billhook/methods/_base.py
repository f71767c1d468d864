"""`Method` and `Problem`: what an algorithm is and what it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from torch import nn

from billhook.allocate.budget import Budget
from billhook.criteria import Calibration
from billhook.criteria._base import Loss, cross_entropy
from billhook.errors import InputError
from billhook.graph import ExampleInputs, Graph, Plan, Scope, capture
from billhook.graph.groups import ChannelGroup
from billhook.options import Configurable


@dataclass(frozen=True, eq=False)
class Problem:
    """What shall shrink, and how far.

    Attributes:
        model: The trained network; nobody may change it.
        example_inputs: One batch as the model takes it.
        budget: Bounds the plan must meet.
        scope: Which groups may be touched.
        data: Batches (inputs, targets) a method may learn from; None if there are none.
        loss: Scalar loss of (outputs, targets).
        seed: Of every draw.
        backend: Runtime that the network is meant for; it says which widths are fast.
        threads: Threads of the runtime when latency is measured.
        round_to: Kept channels are a multiple of this; "auto" leaves it to the backend.
        mixing: "freeze" or "allow", as in `capture`.
    """

    model: nn.Module
    example_inputs: ExampleInputs
    budget: Budget
    scope: Scope = field(default_factory=Scope)
    data: Iterable[Any] | None = None
    loss: Loss = cross_entropy
    seed: int = 0
    backend: str = "onnxruntime"
    threads: int = 1
    round_to: int | Literal["auto"] = "auto"
    mixing: Literal["freeze", "allow"] = "freeze"

    def __post_init__(self) -> None:
        valid = isinstance(self.round_to, int) and not isinstance(self.round_to, bool) and self.round_to >= 1
        if self.round_to != "auto" and not valid:
            raise InputError(f"round_to={self.round_to!r}: expected 'auto' or an integer of at least 1")

    @cached_property
    def graph(self) -> Graph:
        """The captured network."""
        return capture(self.model, self.example_inputs, mixing=self.mixing)

    @cached_property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """Prunable groups in scope."""
        return self.scope.select(self.graph.groups)

    @property
    def calibration(self) -> Calibration | None:
        """Data and loss for criteria that learn from data."""
        return None if self.data is None else Calibration(self.data, self.loss)


@dataclass(frozen=True)
class Method(Configurable, ABC):
    """Decides what stays; a subclass is a frozen dataclass whose fields are its options."""

    @abstractmethod
    def plan(self, problem: Problem) -> Plan:
        """Return a plan that meets the problem's budget; the model is left untouched."""
