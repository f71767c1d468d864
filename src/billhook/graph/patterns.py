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
from billhook.registry import Info, Registry

Array = npt.NDArray[Any]
Shape = tuple[int, int, int]  # outputs, inputs, positions
Parts = Mapping[str, Array]

_DIGITS = 18  # of numbers in texts; Python refuses to read some thousands of them


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

    name: ClassVar[str] = ""  # in the registry: that of the file
    single: ClassVar[bool] = False  # units are single weights: what is beside what does not matter

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        cls.name = cls.__module__.rpartition(".")[2].rstrip("_")

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

    def flaw(self, parts: Parts, shape: Shape) -> str | None:
        """Return why arrays of the right sizes are no structure of this pattern, None if they are."""
        return None

    @abstractmethod
    def units(self, energy: Tensor) -> Tensor:
        """Return the energy of every unit that may leave on its own, as `select` counts it: [units]."""

    def norms(self, weight: Tensor) -> Tensor:
        """Return the L2 norm of every unit: [units]."""
        return self.units(wide(weight).square()).sqrt()

    def groups(self, energy: Tensor) -> tuple[Tensor, ...]:
        """Return the energies of what a penalty may drive to zero, by families of groups, each [groups]."""
        return (self.units(energy),)

    def sparsities(self, shape: Shape) -> tuple[float, float]:
        """Return the smallest and the largest weight sparsity (fraction of zeros) that can be had."""
        count = len(self.units(torch.zeros(shape)))
        return 0.0, 1 - 1 / max(1, count)

    def unit_sparsity(self, weight_sparsity: float, shape: Shape) -> float:
        """Return the `sparsity` to give to `select` for this fraction of zeros."""
        return weight_sparsity

    def units_for(self, energy: Tensor, weight_sparsity: float) -> float:
        """Return the same for a weight with these energies: units of different sizes leave in their order."""
        return self.unit_sparsity(weight_sparsity, shape_of(energy))

    def choose(self, weight: Tensor, sparsity: float) -> Parts:
        """Return the structure whose nearest tensor is nearest to `weight`: the Euclidean projection's."""
        return self.select(wide(weight).square(), sparsity)

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
        return torch.where(anchor != 0, values, 0.0)  # a product would keep -0.0, and NaN

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
    """Patterns by name; one from outside the package takes the name that it is added by."""

    def add(self, name: str, entry: type[Pattern], info: Info) -> None:
        super().add(name, entry, info)
        entry.name = name


patterns = _Patterns("pattern", "billhook.sparse.patterns")


def parse_pattern(text: str) -> Pattern:
    """Return the pattern that a short text stands for.

        "unstructured"   "filter"   "kernel_pattern:entries=5"   "block_punched:rows=8,columns=4"
        "8x4" is block_punched with rows=8 and columns=4, "unified:4x4" the like, "2:4" is n_m, n=2, m=4

    Raises:
        InputError: for an unknown pattern or option, or a value out of range.
    """
    if not isinstance(text, str):
        raise InputError(f"a pattern must be a text such as '4x1' or '2:4', not a {type(text).__name__}")
    name, _, rest = text.strip().partition(":")
    n, m = _whole(name), _whole(rest)
    if n is not None and m is not None:
        return configure(patterns.get("n_m"), {"n": n, "m": m}, what=f"pattern {text!r}")
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


def wide(values: Tensor) -> Tensor:
    """Return values in a type in which squares neither vanish nor overflow: float32 for half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def ordered(energy: Tensor) -> Tensor:
    """Return energies that can be added up and compared: what is no number counts as very large."""
    energy = wide(energy)
    top = torch.finfo(energy.dtype).max / 2**24  # leaves room for sums
    return energy.nan_to_num(nan=top).clamp(max=top)


def shape_of(weight: Tensor) -> Shape:
    """Return the shape of a tensor [outputs, inputs, positions]."""
    outputs, inputs, positions = weight.shape
    return int(outputs), int(inputs), int(positions)


def _size(text: str) -> tuple[int, int] | None:
    """Return the numbers in "8x4", None if the text is something else."""
    rows, columns = map(_whole, text.partition("x")[::2])
    return None if rows is None or columns is None else (rows, columns)


def _whole(text: str) -> int | None:
    """Return the number in "8", None if the text is something else."""
    if not text.isdecimal():
        return None
    if len(text) > _DIGITS:
        raise InputError(f"a pattern with a number of {len(text)} digits; no weight is as large")
    return int(text)


def _number_or_word(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
