"""Which weights of a tensor may be zero or equal: `Pattern`; filled in for one tensor: `Structure`.

A pattern sees every weight as [outputs, inputs, positions]: positions are those of the kernel, one for a
linear layer. The patterns themselves are plug-ins in `billhook.sparse.patterns`; a plan names them, and
`impose_` carries them out, so that nothing else decides what a plan means.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from math import prod
from typing import Any, ClassVar

import numpy.typing as npt
import torch
from torch import Tensor

from billhook.errors import InputError, PlanError
from billhook.graph.packing import from_text, packed_bytes, to_text
from billhook.options import Configurable, configure
from billhook.registry import Registry

Array = npt.NDArray[Any]
Shape = tuple[int, int, int]  # outputs, inputs, positions
Parts = Mapping[str, Array]

MAX_WEIGHTS, MAX_DIMS = 2**31, 8  # of one tensor; what claims more is not a plan of ours


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

    def anchor(self, weight: Tensor, parts: Parts) -> Tensor:
        """Return what training must not change of `weight`: 1 where a weight is free, 0 where it is gone."""
        return self.mask(parts, shape_of(weight)).to(weight)

    def hold(self, values: Tensor, parts: Parts, anchor: Tensor) -> Tensor:
        """Return the nearest tensor to `values` (weights, gradients, …) of this structure and anchor."""
        return values * anchor

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
    if _size(name) and not rest:
        name, rest = "block_punched", name
    options: dict[str, Any] = {}
    for entry in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = entry.partition("=")
        if equals:
            options[key.strip()] = _number_or_word(value.strip())
        elif size := _size(entry):
            options["rows"], options["columns"] = size
        else:
            raise InputError(f"cannot read {entry!r} in pattern {text!r}; write NAME:OPTION=VALUE,…, or 4x1")
    return configure(patterns.get(name), options, what=f"pattern {name!r}")


@dataclass(frozen=True, eq=False)
class Structure:
    """A pattern filled in for one tensor: which of its weights stay.

    Attributes:
        pattern: What the arrays mean.
        shape: Of the tensor, after channels have left.
        parts: The pattern's arrays, see `Pattern.layout`.
        transposed: The tensor has its inputs first, as transposed convolutions have.
    """

    pattern: Pattern
    shape: tuple[int, ...]
    parts: Parts
    transposed: bool = False

    @cached_property
    def mask(self) -> Tensor:
        """True where a weight may differ from zero, in the shape of the tensor."""
        return self._back(self.pattern.mask(self.parts, self._viewed))

    @cached_property
    def nonzeros(self) -> int:
        """How many weights may differ from zero."""
        return int(self.mask.sum())

    @property
    def sparsity(self) -> float:
        """Fraction of the weights that are zero."""
        return 1 - self.nonzeros / max(1, prod(self.shape))

    @cached_property
    def values(self) -> int:
        """How many numbers the tensor consists of: fewer than `nonzeros` where weights share a magnitude."""
        return self.pattern.values(self.parts, self._viewed)

    def stored_bytes(self, itemsize: int) -> int:
        """Return the size of the tensor when it is stored as few numbers and the structure."""
        numbers = self.pattern.encode(torch.zeros(self._viewed, dtype=torch.int8), self.parts)
        bits = (t.numel() * (itemsize if name in FLOATS else t.element_size()) for name, t in numbers.items())
        layout = self.pattern.layout(self._viewed)
        return sum(bits) + sum(packed_bytes(self.parts[n], part.levels) for n, part in layout.items())

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest tensor to `weight` that has this structure."""
        view = viewed(weight, transposed=self.transposed)
        return self._back(self.pattern.hold(view, self.parts, self.pattern.anchor(view, self.parts)))

    def anchor(self, weight: Tensor) -> Tensor:
        """Return what of `weight` training must not change (see `Pattern.anchor`), in its shape."""
        return self._back(self.pattern.anchor(viewed(weight, transposed=self.transposed), self.parts))

    def hold(self, values: Tensor, anchor: Tensor) -> Tensor:
        """Return the nearest tensor to `values` with this structure and the anchor of a weight."""
        view, held = (viewed(t, transposed=self.transposed) for t in (values, anchor))
        return self._back(self.pattern.hold(view, self.parts, held))

    def encode(self, weight: Tensor) -> dict[str, Tensor]:
        """Return the numbers that a tensor of this structure consists of."""
        return self.pattern.encode(viewed(weight, transposed=self.transposed), self.parts)

    def decode(self, numbers: Mapping[str, Tensor]) -> Tensor:
        """Return the tensor that `encode` took apart, bit by bit the same; raises `ValueError`."""
        return self._back(self.pattern.decode(numbers, self.parts, self._viewed))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        layout = self.pattern.layout(self._viewed)
        return {
            "pattern": self.pattern.name,
            "options": self.pattern.options(),
            "shape": list(self.shape),
            **({"transposed": True} if self.transposed else {}),
            "parts": {name: to_text(self.parts[name], part.levels) for name, part in layout.items()},
        }

    @classmethod
    def from_dict(cls, data: Any) -> Structure:
        """Return what `to_dict` wrote; raises `ValueError` with what is wrong."""
        if not isinstance(data, dict) or not isinstance(data.get("parts"), dict):
            raise ValueError("not a table with 'parts'")
        if unknown := set(data) - {"pattern", "options", "shape", "transposed", "parts"}:
            raise ValueError(f"unknown entries {sorted(unknown)}")
        shape, transposed = data.get("shape"), data.get("transposed", False)
        if not isinstance(shape, list) or not 2 <= len(shape) <= MAX_DIMS or not isinstance(transposed, bool):
            raise ValueError(f"shape {shape!r}")
        if not all(type(s) is int and s > 0 for s in shape) or prod(shape) > MAX_WEIGHTS:
            raise ValueError(f"shape {shape!r}")
        options = data.get("options")
        if not isinstance(data.get("pattern"), str) or not isinstance(options, dict):
            raise ValueError("'pattern' or 'options' is missing")
        try:
            kind = patterns.get(data["pattern"])
            pattern = configure(kind, options, what=f"pattern {data['pattern']!r}")
        except InputError as e:
            raise ValueError(str(e)) from None
        view = _view_shape(tuple(shape), transposed)
        if why := pattern.refusal(view):
            raise ValueError(why)
        layout = pattern.layout(view)
        if set(layout) != set(data["parts"]):
            raise ValueError(f"parts {sorted(data['parts'])}, expected {sorted(layout)}")
        parts = {n: from_text(data["parts"][n], part.shape, part.levels) for n, part in layout.items()}
        return cls(pattern, tuple(shape), parts, transposed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structure) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((str(self.pattern), self.shape))

    def __repr__(self) -> str:
        return f"<Structure: {self.pattern}, {list(self.shape)}, {self.sparsity:.1%} zero>"

    @property
    def _viewed(self) -> Shape:
        return _view_shape(self.shape, self.transposed)

    def _back(self, view: Tensor) -> Tensor:
        if not self.transposed:
            return view.reshape(self.shape)
        outputs, inputs, _ = view.shape
        return view.reshape(outputs, inputs, *self.shape[2:]).transpose(0, 1).contiguous()


FLOATS = ("values", "magnitudes")  # numbers of the weight's own type; others are packed already


def viewed(weight: Tensor, *, transposed: bool = False) -> Tensor:
    """Return a weight as [outputs, inputs, positions]."""
    view = weight.transpose(0, 1) if transposed else weight
    return view.reshape(view.shape[0], view.shape[1], -1)


def shape_of(weight: Tensor) -> Shape:
    """Return the shape of a tensor [outputs, inputs, positions]."""
    outputs, inputs, positions = weight.shape
    return int(outputs), int(inputs), int(positions)


@torch.no_grad()
def impose_(tensors: Mapping[str, Tensor], structures: Mapping[str, Structure]) -> None:
    """Give the named tensors, in place, the structures that a plan demands.

    Raises:
        PlanError: if a tensor is missing or has another shape, as when the plan was made for another network.
    """
    for name, structure in structures.items():
        require_fit(name, tensors.get(name), structure)
        tensors[name].copy_(structure.project(tensors[name]))


def require_fit(name: str, tensor: Tensor | None, structure: Structure) -> None:
    """Raise `PlanError` unless `structure` can be that of `tensor`."""
    if tensor is None:
        raise PlanError(f"the plan has a pattern for {name!r}, which this network does not have")
    if tuple(tensor.shape) != structure.shape:
        raise PlanError(
            f"the plan's pattern for {name!r} is for the shape {list(structure.shape)}, the network has "
            f"{list(tensor.shape)}; it was made for another network"
        )


def _view_shape(shape: tuple[int, ...], transposed: bool) -> Shape:
    first, second, *kernel = shape
    return (second, first, prod(kernel)) if transposed else (first, second, prod(kernel))


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
