"""Convolutions and linear layers that read a group, as one matrix each: outputs = rows of inputs · matrixᵀ.

A row holds what one output position sees: the patch under the kernel, channel by channel, and a 1 if the
layer has a bias. A grouped convolution is several such matrices (`blocks`); a transposed one is a plain
convolution over its input with zeros in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from billhook.errors import InputError
from billhook.graph.groups import ChannelGroup, Member

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LISTED = 5  # names in a message


@dataclass(frozen=True)
class MatrixForm:
    """How the matrix of a layer becomes its weight and bias; knows no module.

    Attributes:
        shape: Of the weight.
        bias: There is one; it is the last column.
        transposed: Of a transposed convolution, which has its inputs first and its kernel turned around.
    """

    shape: tuple[int, ...]
    bias: bool
    transposed: bool

    def split(self, matrix: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias of a matrix [blocks, outputs, columns]."""
        bias = matrix[:, :, -1].flatten() if self.bias else None
        matrix = matrix[:, :, :-1] if self.bias else matrix
        if not self.transposed:
            return matrix.reshape(self.shape), bias
        swapped = matrix.reshape(self.shape[1], self.shape[0], *self.shape[2:])
        return swapped.flip(list(range(2, swapped.dim()))).transpose(0, 1), bias


@dataclass(frozen=True, eq=False)
class ReaderLayer:
    """One layer that reads channels of one or more groups.

    Attributes:
        tensor: Name of its weight.
        module: The layer.
        units: Group id → columns of the matrix that each unit owns: [size, columns per unit].
    """

    tensor: str
    module: Any
    units: Mapping[str, Tensor]

    @property
    def blocks(self) -> int:
        """Groups of a convolution, 1 for everything else."""
        return 1 if isinstance(self.module, nn.Linear) else int(self.module.groups)

    def gone(self, keep: Mapping[str, Any]) -> Tensor:
        """Return which columns of the matrix belong to units that leave: mask [columns].

        Args:
            keep: Group id → units that stay: an array or a tensor of flags.
        """
        return gone_columns(self.units, keep, self.matrix().shape[2])

    def on(self, model: nn.Module) -> ReaderLayer:
        """Return the same layer of `model`, which is built like the present one."""
        return ReaderLayer(self.tensor, model.get_submodule(self.tensor.rpartition(".")[0]), self.units)

    def matrix(self) -> Tensor:
        """Return the weights, with the bias as last column if there is one: [blocks, outputs, columns]."""
        weight, bias = self.module.weight.detach(), self.module.bias
        if isinstance(self.module, _TRANSPOSED):
            weight = weight.transpose(0, 1).flip(list(range(2, weight.dim())))
        matrix = weight.reshape(self.blocks, weight.shape[0] // self.blocks, -1)
        return matrix if bias is None else torch.cat([matrix, bias.detach().view(self.blocks, -1, 1)], 2)

    @property
    def form(self) -> MatrixForm:
        """How a matrix laid out like `matrix()` becomes weight and bias."""
        transposed = isinstance(self.module, _TRANSPOSED)
        return MatrixForm(tuple(self.module.weight.shape), self.module.bias is not None, transposed)

    @torch.no_grad()
    def assign_(self, matrix: Tensor) -> None:
        """Take over weights and bias from a matrix laid out like `matrix()`."""
        weight, bias = self.form.split(matrix)
        self.module.weight.copy_(weight)
        if bias is not None:
            self.module.bias.copy_(bias)

    def rows(self, x: Tensor, positions: int, generator: torch.Generator) -> tuple[Tensor, float]:
        """Return the rows for the input `x`, and how many output positions each of them stands for.

        Args:
            x: What the layer was called with.
            positions: If an image has more output positions than this, so many are drawn.
            generator: Of the draws; on the CPU.
        Returns:
            Tensor [blocks, rows, columns], float32 or wider.
        """
        patches, spots = self._patches(x.to(torch.promote_types(x.dtype, torch.float32)))
        count = prod(spots)
        if count > positions:  # drawn before patches are laid out in memory: they are kernel times the input
            images = len(patches)
            drawn = torch.randint(count, (images * positions,), generator=generator)
            at = torch.unravel_index(drawn.to(x.device), spots)
            image = torch.arange(images, device=x.device).repeat_interleave(positions)
            patches = patches[(image, *at)]
        total = len(patches) * (1 if count > positions else count)
        rows = patches.reshape(total, self.blocks, -1).transpose(0, 1)
        if self.module.bias is not None:
            rows = functional.pad(rows, (0, 1), value=1.0)
        return rows, max(1.0, count / positions)

    def _patches(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Return a view [images, *positions, channels, *kernel] of a padded input, and the positions."""
        layer = self.module
        if isinstance(layer, nn.Linear):
            x = x.reshape(1, -1) if x.dim() == 1 else x
            return x, tuple(x.shape[1:-1])
        dims = len(layer.kernel_size)
        x = x if x.dim() == dims + 2 else x.unsqueeze(0)
        stride: Sequence[int] = layer.stride
        if isinstance(layer, _TRANSPOSED):
            x, stride = _stretched(layer, x), (1,) * dims
        else:
            mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
            x = functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
        for axis in range(dims):
            step = layer.dilation[axis]
            x = x.unfold(2 + axis, step * (layer.kernel_size[axis] - 1) + 1, stride[axis])[..., ::step]
        return x.movedim(1, 1 + dims), tuple(x.shape[2 : 2 + dims])


def gone_columns(units: Mapping[str, Tensor], keep: Mapping[str, Any], columns: int) -> Tensor:
    """Return which of so many columns belong to units that leave: mask [columns]; see `ReaderLayer.units`."""
    gone = torch.zeros(columns, dtype=torch.bool)
    for group, owned in units.items():
        if group in keep:
            gone[owned[~torch.as_tensor(keep[group])].flatten()] = True
    return gone


def find_readers(model: nn.Module, groups: Iterable[ChannelGroup], *, method: str) -> list[ReaderLayer]:
    """Return every layer that reads channels of `groups`, each once.

    Raises:
        InputError: if a group is read by nothing, or by something whose outputs are not a matrix times its
            inputs; lists such groups.
    """
    found, problems = _readers(model, groups)
    if problems:
        more = f" and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise InputError(
            f"method {method!r} reconstructs the layers that read a group, and cannot for group "
            f"{'; group '.join(problems[:_LISTED])}{more}. Exclude such groups with scope=Scope(exclude=…) "
            "or choose a method that looks at weights alone, such as 'iterative'"
        )
    return found


def supported_readers(model: nn.Module, groups: Iterable[ChannelGroup]) -> list[ReaderLayer]:
    """Return every layer that reads channels of `groups`, without groups that `find_readers` would refuse."""
    return _readers(model, groups)[0]


def _readers(model: nn.Module, groups: Iterable[ChannelGroup]) -> tuple[list[ReaderLayer], list[str]]:
    """Return the layers that read groups, and why some groups have none."""
    modules = {
        f"{name}.weight" if name else "weight": m
        for name, m in model.named_modules()
        if isinstance(m, (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED))
    }
    found: dict[str, dict[str, Tensor]] = {}
    problems = []
    for group in groups:
        reading = [m for m in group.members if m.role == "in"]
        reasons = [_unsupported(model, modules.get(m.tensor), m) for m in reading] or [
            "no layer with weights reads it"
        ]
        problems += [f"{group.id!r}: {reason}" for reason in reasons if reason][:1]
        if any(reasons):
            continue
        for member in reading:
            found.setdefault(member.tensor, {})[group.id] = _columns(modules[member.tensor], member)
    return [ReaderLayer(name, modules[name], units) for name, units in found.items()], problems


def _unsupported(model: nn.Module, module: nn.Module | None, member: Member) -> str | None:
    if module is None:
        return f"{member.tensor} is not the weight of a convolution or a linear layer"
    known = (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED)
    plain = next(kind for kind in known if isinstance(module, kind))
    if any(
        getattr(type(module), name, None) is not getattr(plain, name, None)
        for name in ("forward", "_conv_forward")
    ):
        return f"{type(module).__name__} ({member.tensor}) has a forward of its own"
    if isinstance(module, _TRANSPOSED) and module.groups > 1:
        return f"{member.tensor} belongs to a transposed convolution in groups"
    weight = module.weight
    if sum(getattr(m, "weight", None) is weight for m in model.modules()) > 1:
        return f"{member.tensor} is the weight of several layers"
    return None


def _columns(module: nn.Module, member: Member) -> Tensor:
    """Return which columns of the layer's matrix each unit owns: [size, columns per unit]."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    index, kernel = torch.tensor(member.index), prod(weight.shape[2:])
    return (index[:, :, None] * kernel + torch.arange(kernel)).flatten(1)


def _stretched(layer: Any, x: Tensor) -> Tensor:
    """Return what a plain convolution must slide over, with stride 1, to do what a transposed one does."""
    dims = len(layer.kernel_size)
    size = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], layer.stride, strict=True)]
    wide = x.new_zeros(*x.shape[:2], *size)
    spots: tuple[slice, ...] = tuple(slice(None, None, s) for s in layer.stride)
    wide[:, :, *spots] = x
    pads: list[int] = []
    for axis in reversed(range(dims)):
        before = layer.dilation[axis] * (layer.kernel_size[axis] - 1) - layer.padding[axis]
        pads += [before, before + layer.output_padding[axis]]
    return functional.pad(wide, pads)
