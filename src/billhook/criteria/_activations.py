"""What criteria on activations share: what the layers that read a unit get from it, batch by batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from billhook.criteria._base import Calibration, Criterion, Loss, ScoreContext
from billhook.criteria._passes import batch_size, loss_of, needed, outputs_of, pairs, recording, untouched
from billhook.criteria._readers import Reader
from billhook.errors import InputError
from billhook.graph.groups import ChannelGroup, IndexMap
from billhook.options import Number, option

Read = tuple[str, Reader, IndexMap]  # (weight, who reads with it, the channels of every unit)
Measured = Mapping[str, Sequence[Tensor]]  # by weight, [rows, channels] per call
See = Callable[[str, Reader, Tensor], Tensor]  # (weight, who reads, its input) → what it gets instead

_READING = {
    *(functional.linear, functional.conv1d, functional.conv2d, functional.conv3d),
    *(functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d),
}


@dataclass(frozen=True)
class OfActivations(Criterion):
    """Judges a unit by its activation: what stands in its place in the inputs of the layers that read it.

    That is behind norm and activation function, wherever these stand. It is seen by convolutions and linear
    layers whose weights read the unit; if there are several, or one is called more than once, their
    numbers are averaged. A unit of several channels has the mean of these.

    The model runs in eval mode, one pass per batch, and what a batch says is kept as one number per unit.
    Samples have equal weight, also when batches differ in size.

    Attributes:
        name: Of the criterion, for messages.
        gradients: `measure` gets a · ∂L/∂a instead of the activation a. L is the loss of one sample, which
            supposes that the loss of a batch is their mean. Only what goes through the reader itself
            counts in the gradient, so that a path that several layers read is not counted again by each.
    """

    name: ClassVar[str]
    gradients: ClassVar[bool] = False
    batches: int = option(30, Number(1, integer=True), "use at most this many batches")

    @abstractmethod
    def measure(self, values: Tensor) -> Tensor:
        """Return one number per channel: [rows, channels] of [rows, channels, *positions], float32.

        Rows are samples if there are gradients; otherwise a layer may see a sample as several rows.
        """

    def combine(self, readings: Sequence[Tensor]) -> Tensor:
        """Return the mean over the samples of a batch, [size], of [rows, size, width] per reader."""
        return torch.stack([r.mean((0, 2)) for r in readings]).mean(0)

    def unsupported(self, group: ChannelGroup, context: ScoreContext) -> str | None:
        """Return a reason for groups that no convolution or linear layer reads."""
        return None if _reads(group, context) else "no convolution or linear layer reads it"

    def prepare(
        self,
        model: nn.Module,
        groups: Sequence[ChannelGroup],
        context: ScoreContext,
        calibration: Calibration | None,
    ) -> ScoreContext:
        """Return `context` with the mean over samples for every unit of `groups`."""
        calibration = needed(calibration, self.name)
        reads = {g.id: _reads(g, context) for g in groups}
        listening = {weight: reader for found in reads.values() for weight, reader, _ in found}
        totals: dict[str, Tensor] = {}
        samples = 0
        with untouched(model, context.seed):
            for number, inputs, targets in pairs(model, calibration, self.batches):
                count = batch_size(inputs)
                if self.gradients:
                    loss = (calibration.loss, targets, number)
                    measured = self._backward(model, listening, inputs, *loss)
                else:
                    measured = self._forward(model, listening, inputs)
                for name, found in reads.items():
                    units = count * self.combine(_readings(name, found, measured))
                    totals[name] = totals[name] + units if name in totals else units
                samples += count
        return replace(context, units={name: total / samples for name, total in totals.items()})

    def score(self, group: ChannelGroup, context: ScoreContext) -> Tensor:
        """Return what `prepare` found: [size]."""
        return context.units[group.id]

    def _forward(self, model: nn.Module, listening: Mapping[str, Reader], inputs: Any) -> Measured:
        """Return `measure` of the activations."""
        measured: dict[str, list[Tensor]] = {}

        def see(weight: str, reader: Reader, activation: Tensor) -> Tensor:
            values = reader.channels_second(activation.detach()).float()
            measured.setdefault(weight, []).append(self.measure(values))
            return activation

        with torch.no_grad(), recording(model), _Watching(model, listening, see):
            outputs_of(model, inputs)
        return measured

    def _backward(
        self,
        model: nn.Module,
        listening: Mapping[str, Reader],
        inputs: Any,
        loss: Loss,
        targets: Any,
        number: int,
    ) -> Measured:
        """Return `measure` of activation · gradient."""
        seen: list[tuple[str, Reader, Tensor]] = []

        def see(weight: str, reader: Reader, activation: Tensor) -> Tensor:
            # A copy: gradients stop at this reader, and nobody overwrites the values before they are used.
            own = activation.clone() if activation.requires_grad else activation.clone().requires_grad_()
            seen.append((weight, reader, own))
            return own

        with recording(model):
            with _Watching(model, listening, see):
                value = loss_of(loss, outputs_of(model, inputs), targets, number)
            owned = [activation for _, _, activation in seen]
            gradients = torch.autograd.grad(value, owned, allow_unused=True, materialize_grads=True)
        measured: dict[str, list[Tensor]] = {}
        for (weight, reader, activation), gradient in zip(seen, gradients, strict=True):
            values = reader.channels_second(activation.detach().float() * gradient.float())
            values = _one_row_per_sample(reader, values, batch_size(inputs)) * batch_size(inputs)
            measured.setdefault(weight, []).append(self.measure(values))
        return measured


def _reads(group: ChannelGroup, context: ScoreContext) -> list[Read]:
    """Return who reads the group and where."""
    return [
        (m.tensor, reader, reader.positions(m, context.tensors[m.tensor].shape[m.axis]))
        for m in group.members
        if m.role == "in" and (reader := context.readers.get(m.tensor)) and reader.axis == m.axis
    ]


def _readings(name: str, found: Sequence[Read], measured: Measured) -> list[Tensor]:
    """Return what was measured in the places of the group's units: [rows, size, width] per call."""
    readings = []
    for weight, _, positions in found:
        for values in measured.get(weight, ()):
            index = torch.tensor(positions, device=values.device)
            readings.append(values.index_select(1, index.flatten()).reshape(-1, *index.shape))
    if not readings:
        layers = ", ".join(repr(reader.layer) for _, reader, _ in found)
        raise InputError(
            f"nothing was seen of group {name!r}: the model does not use layer {layers}, or does so in a "
            "way of its own; exclude the group with scope=Scope(exclude=…) or choose another criterion"
        )
    return readings


def _one_row_per_sample(reader: Reader, values: Tensor, samples: int) -> Tensor:
    """Return [samples, channels, *positions]; windows or frames of a sample become positions."""
    if len(values) == samples:
        return values
    if len(values) % samples:
        raise InputError(
            f"layer {reader.layer!r} sees {len(values)} rows of a batch of {samples} samples, which cannot "
            "be told apart; exclude what it reads with scope=Scope(exclude=…) or choose another criterion"
        )
    return values.reshape(samples, -1, *values.shape[1:]).movedim(1, 2)


class _Watching(TorchFunctionMode):
    """Lets `see` look at, and replace, what is multiplied with the weights of `listening`, by their name.

    Functions are watched, not layers, because some networks hand a layer's weight to the function themselves.
    """

    def __init__(self, model: nn.Module, listening: Mapping[str, Reader], see: See) -> None:
        super().__init__()
        weights = dict(model.named_parameters())
        self.by_weight = {id(weights[name]): (name, reader) for name, reader in listening.items()}
        self.see = see

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        weight = args[1] if len(args) > 1 else kwargs.get("weight")
        if func in _READING and (found := self.by_weight.get(id(weight))):
            if args:
                args = (self.see(*found, args[0]), *args[1:])
            else:
                kwargs = kwargs | {"input": self.see(*found, kwargs["input"])}
        return func(*args, **kwargs)
