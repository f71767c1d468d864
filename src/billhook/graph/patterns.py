"""Which weights of a tensor may be zero or equal: `Pattern`, and the texts that name one.

A pattern sees every weight as [outputs, inputs, positions]: positions are those of the kernel, one for a
linear layer. The patterns themselves are plug-ins in `billhook.sparse.patterns`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

import numpy.typing as npt
import torch
from torch import Tensor

from billhook.errors import InputError
from billhook.options import Configurable, configure
from billhook.registry import Registry

Array = npt.NDArray[Any]
Shape = tuple[int, int, int]  # outputs, inputs, positions
Parts = Mapping[str, Array]


@dataclass(frozen=True)
class Part:
    """One array of whole numbers that a structure consists of.

    Attributes:
        shape: Of the array.
        levels: Its values are 0 … levels - 1; 2 for flags.
    """

    shape: tuple[int, ...]
    levels: int = 2


@dataclass(frozen=True)
class Pattern(Configurable, ABC):
    """A set of tensors: all that have a certain structure. A subclass is a frozen dataclass of options.

    Everything here is a pure function of tensors [outputs, inputs, positions].
    """

    name: ClassVar[str] = ""  # in the registry; set by it

    @abstractmethod
    def refusal(self, shape: Shape, groups: int = 1) -> str | None:
        """Return why the pattern does not fit a weight of this shape, None if it does.

        Args:
            shape: Of the weight; inputs are those of one group.
            groups: Of a convolution.
        """

    @abstractmethod
    def layout(self, shape: Shape) -> Mapping[str, Part]:
        """Return which arrays describe a structure of this shape."""

    @abstractmethod
    def select(self, energy: Tensor, sparsity: float) -> Parts:
        """Return the structure of at least that sparsity which keeps the most energy.

        Args:
            energy: What each weight is worth, at least 0: w² gives the Euclidean projection.
            sparsity: Fraction of the units (single weights, blocks, kernels) that leave, from 0 to below 1.
        """

    @abstractmethod
    def mask(self, parts: Parts, shape: Shape) -> Tensor:
        """Return True where a weight may differ from zero: [outputs, inputs, positions], bool."""

    @abstractmethod
    def units(self, energy: Tensor) -> Tensor:
        """Return the energy of every unit that may leave on its own, as `select` counts it: [units]."""

    def norms(self, weight: Tensor) -> Tensor:
        """Return the L2 norm of every unit: [units]."""
        return self.units(weight.square()).sqrt()

    def sparsities(self, shape: Shape) -> tuple[float, float]:
        """Return the smallest and the largest weight sparsity (fraction of zeros) that can be had."""
        count = len(self.units(torch.zeros(shape)))
        return 0.0, 1 - 1 / max(1, count)

    def unit_sparsity(self, weight_sparsity: float, shape: Shape) -> float:
        """Return the `sparsity` to give to `select` for this fraction of zeros."""
        return weight_sparsity

    def choose(self, weight: Tensor, sparsity: float) -> Parts:
        """Return the structure whose nearest tensor is nearest to `weight`: the Euclidean projection's."""
        return self.select(weight.square(), sparsity)

    def settled(self, parts: Parts) -> Pattern:
        """Return the pattern with what its first projection has chosen, for projecting again and again."""
        return self

    def partly(self, progress: float) -> Pattern | None:
        """Return what to ask for on the way to this pattern, None as long as that is nothing.

        Args:
            progress: How far the zeros have come, from 0 to 1; most patterns take any number of zeros.
        """
        return self

    def anchor(self, weight: Tensor, parts: Parts) -> Tensor:
        """Return what training must not change of `weight`: 1 where a weight is free, 0 where it is gone."""
        return self.mask(parts, shape_of(weight)).to(weight)

    def hold(self, values: Tensor, parts: Parts, anchor: Tensor) -> Tensor:
        """Return the nearest tensor to `values` (weights, gradients, …) of this structure and anchor."""
        return values * anchor + 0.0  # which makes a zero of -0.0

    def values(self, parts: Parts, shape: Shape) -> int:
        """Return how many numbers a tensor of this structure consists of."""
        return int(self.mask(parts, shape).sum())

    def encode(self, weight: Tensor, parts: Parts) -> dict[str, Tensor]:
        """Return a tensor of this structure as few numbers; `decode` gives the same bits back."""
        return {"values": weight[self.mask(parts, shape_of(weight)).to(weight.device)]}

    def decode(self, numbers: Mapping[str, Tensor], parts: Parts, shape: Shape) -> Tensor:
        """Return the tensor that `encode` took apart.

        Raises:
            ValueError: if the numbers do not fit the structure.
        """
        values, mask = numbers["values"], self.mask(parts, shape)
        if values.shape != (int(mask.sum()),):
            raise ValueError(f"{values.numel()} values for {int(mask.sum())} weights")
        weight = torch.zeros(shape, dtype=values.dtype)
        weight[mask] = values
        return weight

    def options(self) -> dict[str, Any]:
        """Return the options that differ from their defaults."""
        given = {f.name: (getattr(self, f.name), f.default) for f in fields(self)}
        return {n: v for n, (v, default) in given.items() if default is MISSING or v != default}

    def __str__(self) -> str:
        options = ",".join(f"{n}={v}" for n, v in self.options().items())
        return f"{self.name}:{options}" if options else self.name


class _Patterns(Registry[type[Pattern]]):
    """Patterns by name; an entry learns its name when it is looked up."""

    def get(self, name: str) -> type[Pattern]:
        kind = super().get(name)
        kind.name = name
        return kind


patterns = _Patterns("pattern", "billhook.sparse.patterns")


def parse_pattern(text: str) -> Pattern:
    """Return the pattern that a short text stands for.

        "unstructured"   "filter"   "kernel_pattern:entries=5"   "block_punched:rows=8,columns=4"
        "8x4" is block_punched with rows=8 and columns=4, "unified:4x4" the like, "2:4" is n_m, n=2, m=4

    Raises:
        InputError: for an unknown pattern or option, or a value out of range.
    """
    name, _, rest = text.strip().partition(":")
    if name.isdecimal() and rest.isdecimal():
        return configure(patterns.get("n_m"), {"n": int(name), "m": int(rest)}, what=f"pattern {text!r}")
    if _size(name):
        text = f"block_punched:{name},{rest}"
    name, options = options_in(text)
    return configure(patterns.get(name), options, what=f"pattern {name!r}")


def options_in(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the options in "name:option=value,option=value"; "8x4" stands for rows, columns.

    Raises:
        InputError: if the text is written otherwise.
    """
    name, _, rest = text.strip().partition(":")
    options: dict[str, Any] = {}
    for entry in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = entry.partition("=")
        if equals:
            options[key.strip()] = _number_or_word(value.strip())
        elif size := _size(entry):
            options["rows"], options["columns"] = size
        else:
            raise InputError(f"cannot read {entry!r} in pattern {text!r}; write NAME:OPTION=VALUE,…, or 4x1")
    return name.strip(), options


def shape_of(weight: Tensor) -> Shape:
    """Return the shape of a tensor [outputs, inputs, positions]."""
    outputs, inputs, positions = weight.shape
    return int(outputs), int(inputs), int(positions)


def _size(text: str) -> tuple[int, int] | None:
    """Return the numbers in "8x4", None if the text is something else."""
    rows, by, columns = text.partition("x")
    return (int(rows), int(columns)) if by and rows.isdecimal() and columns.isdecimal() else None


def _number_or_word(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
