"""Units of channel groups in the tensors of a network that is being trained.

A unit is silenced where it is read: the weights of the layers that read its channels become zero, which is
what removal will mean (see `graph.silence`). Its own weights stay, so a unit can come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from billhook.criteria._members import others, per_unit, weights
from billhook.fuse.copies import ChannelCopy
from billhook.graph.branches import Branch
from billhook.graph.branches import gone as gone_branches
from billhook.graph.groups import ChannelGroup, Member
from billhook.graph.plan import Keep

Tensors = Mapping[str, Tensor]


def live_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers by name: views that share memory with the model, without gradient."""
    named = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    return {name: tensor.detach() for name, tensor in named.items()}


def readers(group: ChannelGroup, tensors: Tensors) -> tuple[Member, ...]:
    """Return the weights that read the group's channels, or, where none does, those that make them."""
    reading = [m for m in group.members if m.role == "in" and tensors[m.tensor].is_floating_point()]
    return tuple(reading) or producers(group, tensors)


def producers(group: ChannelGroup, tensors: Tensors) -> tuple[Member, ...]:
    """Return the weights and biases that make the group's channels."""
    return tuple(m for m in group.members if m.role == "out" and tensors[m.tensor].is_floating_point())


def spread(values: Tensor, member: Member, length: int, fill: float = 1.0) -> Tensor:
    """Return one value per index of the member's axis, `fill` where none of its units lies: [length]."""
    index = torch.tensor(member.index, device=values.device).flatten()
    vector = values.new_full((length,), fill)
    return vector.index_copy_(0, index, values.repeat_interleave(member.width))


def factor(values: Tensor, member: Member, tensor: Tensor, fill: float = 1.0) -> Tensor:
    """Return one value per unit ([size]) as what `tensor`, of which they own slices, is multiplied with."""
    vector = spread(values.to(tensor), member, tensor.shape[member.axis], fill)
    return vector.view([-1 if d == member.axis else 1 for d in range(tensor.dim())])


@torch.no_grad()
def scale_(tensors: Tensors, members: Iterable[Member], factors: Tensor) -> None:
    """Multiply the slices of every unit by its factor ([size]), in place."""
    for m in members:
        tensors[m.tensor].mul_(factor(factors, m, tensors[m.tensor]))


def silence_(tensors: Tensors, groups: Sequence[ChannelGroup], keep: Mapping[str, Keep]) -> None:
    """Let nobody read the units that do not stay, in place."""
    for group in groups:
        stays = keep.get(group.id)
        if stays is not None and not stays.all():
            scale_(tensors, readers(group, tensors), torch.from_numpy(stays).float())


@torch.no_grad()
def open_gates_(model: nn.Module, groups: Sequence[ChannelGroup]) -> None:
    """Open all gates through which copies of the groups' units are read, before units are chosen anew.

    They are not trained (see `billhook.fuse.ChannelCopy`), so a gate that silence has shut would stay shut,
    and what is read through it would count for nothing.
    """
    gates = {f"{name}.gate": m.gate for name, m in model.named_modules() if isinstance(m, ChannelCopy)}
    for group in groups:
        for m in group.members:
            if m.tensor in gates:
                gate = gates[m.tensor]
                gate.index_fill_(0, torch.tensor(m.index, device=gate.device).flatten(), 1)


class HeldSilence:
    """Keeps units silent while a network trains: called after every step, it works out what to zero once.

    Args:
        groups: Groups whose units may be silent.
        branches: Residual branches that add nothing once no unit of a group of their own is left; without
            this they would still add the shift of their last layer.
    """

    def __init__(self, groups: Sequence[ChannelGroup], branches: Sequence[Branch] = ()) -> None:
        self._groups, self._branches = groups, branches
        self._key: object = None
        self._factors: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def hold_(self, model: nn.Module, gone: Mapping[str, Tensor]) -> None:
        """Let nobody read the units in `gone` ([size] for each group); a change must be a new mapping."""
        if self._key is not gone:
            self._key, self._factors = gone, self._worked_out(model, gone)
        for tensor, factor in self._factors:
            tensor.mul_(factor)

    def _worked_out(self, model: nn.Module, gone: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        parameters = dict(model.named_parameters())
        named: dict[str, Tensor] = {**dict(model.named_buffers()), **parameters}
        found = []
        for group in self._groups:
            absent = gone.get(group.id)
            if absent is None or not absent.any():
                continue
            for m in readers(group, named):
                tensor = named[m.tensor]
                found.append((tensor, factor(~absent, m, tensor)))
        empty = gone_branches(self._branches, {name: (~units).numpy() for name, units in gone.items()})
        tensors = frozenset[str]().union(*(b.tensors for b in empty)) & parameters.keys()
        found += [(parameters[name], parameters[name].new_zeros(())) for name in sorted(tensors)]
        return found


class Masks:
    """Factors on units for the length of one step: forward and backward see W·z, the optimiser sees W.

        masks.put(factors)            # before the forward pass
        slopes = masks.take_off()     # after the backward pass: ∂L/∂z per unit

    With readers masked, W·z computes what a gate z on the channel itself would, whatever norms and
    activations lie before it, and costs no pass over activations. One draw of z holds for a whole batch. The
    gradient of W becomes the one of the gated network: z·∂L/∂(W·z).

    Args:
        model: Network in training.
        groups: Groups whose units get factors.
    """

    def __init__(self, model: nn.Module, groups: Sequence[ChannelGroup]) -> None:
        self._parameters = dict(model.named_parameters())
        tensors = live_tensors(model)
        self._where: dict[str, list[tuple[str, Member]]] = {}
        for group in groups:
            for member in readers(group, tensors):
                if member.tensor in self._parameters:
                    self._where.setdefault(member.tensor, []).append((group.id, member))
        self._sizes = {g.id: g.size for g in groups}
        self._own: dict[str, Tensor] = {}
        self._vectors: dict[str, list[Tensor]] = {}
        self._frozen: set[str] = set()

    @torch.no_grad()
    def put(self, factors: Mapping[str, Tensor]) -> None:
        """Multiply the weights by one factor per unit ([size] for each group).

        Weights that do not train get a gradient for this step, because units behind them have slopes too.
        """
        self._restore()  # a step that never came to its backward pass
        for name, places in self._where.items():
            weight = self._parameters[name]
            if not weight.requires_grad:
                self._frozen.add(name)
                weight.requires_grad_(True)
            self._own[name] = weight.detach().clone()
            self._vectors[name] = [factor(factors[g], m, weight) for g, m in places]
            for vector in self._vectors[name]:
                weight.mul_(vector)

    @torch.no_grad()
    def take_off(self, *, slopes_wanted: bool = True) -> dict[str, Tensor]:
        """Put the weights back; return ∂L/∂z of every unit ([size] for each group), zeros if not wanted."""
        slopes = {name: torch.zeros(size) for name, size in self._sizes.items()}
        vectors_of = self._vectors
        self._restore()
        for name, places in self._where.items():
            weight, vectors = self._parameters[name], vectors_of.get(name)
            if weight.grad is None or vectors is None:
                continue
            for at, (group, member) in enumerate(places if slopes_wanted else ()):
                product = weight.grad * weight
                for other in (*vectors[:at], *vectors[at + 1 :]):
                    product = product * other
                along_axis = product.sum(others(product, member.axis)) if product.dim() > 1 else product
                slopes[group] += per_unit(along_axis, member).to(slopes[group])
            for vector in vectors:
                weight.grad.mul_(vector)
            if name in self._frozen:
                weight.grad = None
        self._frozen = set()
        return slopes

    def _restore(self) -> None:
        """Put the weights back as they were without masks."""
        for name, own in self._own.items():
            self._parameters[name].copy_(own)
        for name in self._frozen:
            self._parameters[name].requires_grad_(False)
        self._own, self._vectors = {}, {}


def unit_norms(tensors: Tensors, group: ChannelGroup, *, power: int = 2, which: str = "out") -> Tensor:
    """Return Σ|w|^power per unit over the weights of members `which` ("out" or "all"): [size]."""
    total = torch.zeros(group.size)
    for m in weights(group, tensors, which) or weights(group, tensors):
        powers = tensors[m.tensor].float().abs().pow(power)
        total += per_unit(powers.sum(others(powers, m.axis)) if powers.dim() > 1 else powers, m).cpu()
    return total
