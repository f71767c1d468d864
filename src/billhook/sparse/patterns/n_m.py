"""N:M: of every m consecutive inputs, n stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from billhook.errors import InputError
from billhook.graph.patterns import Part, Parts, Pattern, Shape
from billhook.options import Number, option
from billhook.registry import Info
from billhook.sparse.patterns._borders import remainder_option

INFO = Info(
    "n of every m consecutive inputs stay",
    "Mishra et al., Accelerating Sparse Deep Neural Networks, 2021, arXiv:2104.08378",
    notes="2:4 is what sparse tensor cores multiply; the sparsity is always 1 - n/m",
)


@dataclass(frozen=True)
class NM(Pattern):
    """Of m consecutive inputs of the same output and kernel position, the n largest weights stay.

    Groups are disjoint, so choosing in each of them is the exact Euclidean projection. The sparsity is
    fixed: `select` does not look at the one it is asked for, and `sparsities` names the only one there is.

    References:
        Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021, section 3. arXiv:2104.08378.
    """

    n: int = option(2, Number(1, 256, integer=True), "weights of a group that stay")
    m: int = option(
        4, Number(2, 256, integer=True), "weights of a group; what is left of the inputs is a smaller one"
    )
    remainder: str = remainder_option()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n >= self.m:
            raise InputError(f"pattern 'n_m': n={self.n} must be below m={self.m}")

    def __str__(self) -> str:
        return f"{self.n}:{self.m}" if self.remainder == "pad" else super().__str__()

    def refusal(self, shape: Shape, groups: int = 1) -> str | None:
        """Return why the groups do not fit: they do not divide the inputs."""
        if self.remainder == "refuse" and shape[1] % self.m:
            return f"groups of {self.m} inputs do not divide {shape[1]} inputs"
        return None

    def layout(self, shape: Shape) -> Mapping[str, Part]:
        """Return one flag per weight."""
        return {"keep": Part(shape)}

    def flaw(self, parts: Parts, shape: Shape) -> str | None:
        """Return which group keeps too many weights."""
        keep, missing = parts["keep"], -shape[1] % self.m
        if missing:
            keep = np.pad(keep, ((0, 0), (0, missing), (0, 0)))
        most = int(keep.reshape(shape[0], -1, self.m, shape[2]).sum(2, dtype=np.int16).max())
        return f"{most} of {self.m} inputs stay somewhere, {self.n} at most" if most > self.n else None

    def select(self, energy: Tensor, sparsity: float) -> Parts:
        """Return the structure with the n largest energies of every group; of equal ones, the first."""
        outputs, inputs, positions = energy.shape
        # Padding comes last, and where it competes the sort is stable: no weight gives way to it.
        padded = functional.pad(energy.detach().cpu(), (0, 0, 0, -inputs % self.m), value=-1.0)
        groups = padded.reshape(outputs, -1, self.m, positions)
        largest = torch.sort(groups, dim=2, descending=True, stable=True).indices[:, :, : self.n]
        keep = torch.zeros(groups.shape, dtype=torch.bool).scatter_(2, largest, True)
        return {"keep": np.ascontiguousarray(keep.reshape(outputs, -1, positions)[:, :inputs].numpy())}

    def mask(self, parts: Parts, shape: Shape) -> Tensor:
        """Return True for the weights that stay."""
        return torch.from_numpy(parts["keep"])

    def units(self, energy: Tensor) -> Tensor:
        """Return the energy of every weight: how many of them leave, no one can choose."""
        return energy.reshape(-1)

    def sparsities(self, shape: Shape) -> tuple[float, float]:
        """Return the only weight sparsity there is, 1 - n/m where m divides the inputs."""
        whole, rest = divmod(shape[1], self.m)
        return (1 - (whole * self.n + min(rest, self.n)) / shape[1],) * 2


ENTRY = NM
