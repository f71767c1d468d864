"""`Criterion`: what every file of this package implements, and what it may look at."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from billhook.criteria._readers import Reader, readers
from billhook.errors import InputError
from billhook.graph.groups import ChannelGroup
from billhook.graph.inputs import ExampleInputs
from billhook.options import Configurable

Loss = Callable[[Any, Any], Tensor]
Axis = tuple[str, int]


@dataclass(frozen=True)
class ScoreContext:
    """What a criterion may look at; nothing in it leads back to the model.

    Attributes:
        tensors: Parameters and buffers by name, detached; not to be written to.
        seed: Of the criteria that draw.
        readers: Convolutions and linear layers, by the name of the weight they read their input with.
        example_inputs: One batch as the model takes it; None if nobody gave one.
        saliency: Per axis of a named tensor, a sum over all other axes, one row per batch: [batches, n].
            Empty until a criterion's `prepare` fills it; what it sums is up to the criterion.
        units: Per group id, one number per unit: [size]. Empty until a criterion's `prepare` fills it.
    """

    tensors: Mapping[str, Tensor]
    seed: int = 0
    readers: Mapping[str, Reader] = field(default_factory=dict)
    example_inputs: ExampleInputs | None = None
    saliency: Mapping[Axis, Tensor] = field(default_factory=dict)
    units: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, seed: int = 0, example_inputs: ExampleInputs | None = None) -> ScoreContext:
        """Return the context of `model`; copies nothing."""
        named = {**dict(model.named_buffers()), **dict(model.named_parameters())}
        detached = {name: tensor.detach() for name, tensor in named.items()}
        return cls(detached, seed, readers(model), example_inputs)

    def generator(self, group: ChannelGroup) -> torch.Generator:
        """Return a generator of the group's own, so that scores do not depend on the order of groups."""
        return torch.Generator().manual_seed(zlib.crc32(group.id.encode()) ^ (self.seed & 0xFFFFFFFF))


def cross_entropy(outputs: Any, targets: Any) -> Tensor:
    """Return the mean cross entropy; the loss of those who give none."""
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        raise InputError(
            "the default loss takes a tensor of logits and a tensor of classes, not "
            f"{type(outputs).__name__} and {type(targets).__name__}; give loss=f(outputs, targets)"
        )
    return functional.cross_entropy(outputs, targets)


@dataclass(frozen=True)
class Calibration:
    """Data a criterion may learn from.

    Attributes:
        batches: Pairs (inputs, targets); inputs as the model takes them (tensor, tuple or dict).
        loss: Scalar loss of (outputs, targets).
    """

    batches: Iterable[Any]
    loss: Loss = cross_entropy


@dataclass(frozen=True)
class Criterion(Configurable, ABC):
    """Scores the units of a group; a subclass is a frozen dataclass whose fields are its options.

    Attributes:
        additive: Scores of different groups are on one scale and may be added up, because all of them are
            changes of the loss. Otherwise they are comparable within their group only.
    """

    additive: ClassVar[bool] = False

    @abstractmethod
    def score(self, group: ChannelGroup, context: ScoreContext) -> Tensor:
        """Return [group.size] float32, higher = keep."""

    def unsupported(self, group: ChannelGroup, context: ScoreContext) -> str | None:
        """Return why `group` cannot be scored, None if it can."""
        return None

    def prepare(
        self,
        model: nn.Module,
        groups: Sequence[ChannelGroup],
        context: ScoreContext,
        calibration: Calibration | None,
    ) -> ScoreContext:
        """Return `context` with what this criterion takes from data, computed once for all `groups`."""
        return context
