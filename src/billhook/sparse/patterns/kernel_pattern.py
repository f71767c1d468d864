"""Kernel patterns: every 3×3 kernel keeps the same few positions as many others, or leaves as a whole."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from billhook.errors import InputError
from billhook.graph.patterns import Array, Part, Parts, Pattern, Shape, ordered, wide
from billhook.options import Number, Rule, option
from billhook.registry import Info
from billhook.sparse.patterns._blocks import keep_largest

INFO = Info(
    "3×3 kernels that keep a few positions, chosen from a small library, or leave as a whole",
    "Niu et al., PatDNN, ASPLOS 2020, arXiv:2001.00138",
    notes="at least 1 - entries/9 of the weights leave; the library is chosen from the weights",
)

POSITIONS = 9
_DRAWN = re.compile(r"([o-]{9}(/[o-]{9})*)?")


class _Drawings(Rule):
    """Patterns as text, "oo-oo----/-oo-oo---": position by position, o for one that stays."""

    def accepts(self, value: object) -> bool:
        if not isinstance(value, str) or _DRAWN.fullmatch(value) is None:
            return False
        return len(set(value.split("/"))) == len(value.split("/"))

    def __str__(self) -> str:
        return "different patterns like 'oo-oo----/-oo-oo---', or empty"


@dataclass(frozen=True)
class KernelPattern(Pattern):
    """Every kernel keeps `entries` of its 9 positions, in one of `library` ways; whole kernels leave besides.

    The library holds the natural patterns (the `entries` largest weights of a kernel) that most kernels have;
    of equally frequent ones, those that keep more energy. A kernel gets the pattern that keeps most of its
    energy, and the kernels that stay are those of which most is kept: for a given library, the exact
    Euclidean projection.

    The `sparsity` of `select` and `choose` is the fraction of kernels that leave; `unit_sparsity` makes it of
    a fraction of zeros, which is at least 1 - entries/9. A library that has once been chosen is kept by
    `settled`.

    References:
        Niu et al., "PatDNN: Achieving Real-Time DNN Execution on Mobile Devices with Pattern-based Weight
        Pruning", ASPLOS 2020, section 4.1 (kernel patterns, connectivity). arXiv:2001.00138.
    Differs from the source:
        The central weight is not kept in every pattern; connectivity is pruned together with the patterns.
    """

    entries: int = option(4, Number(1, POSITIONS, integer=True), "positions that a kernel keeps")
    library: int = option(8, Number(1, 126, integer=True), "how many different patterns there may be")
    fixed: str = option("", _Drawings(), "the patterns of the library; empty: chosen from the weights")

    def __post_init__(self) -> None:
        super().__post_init__()
        drawn = self.fixed.split("/") if self.fixed else []
        if len(drawn) > self.library or any(d.count("o") != self.entries for d in drawn):
            raise InputError(
                f"pattern 'kernel_pattern': fixed={self.fixed!r} must be at most {self.library} patterns of "
                f"{self.entries} positions"
            )

    def settled(self, parts: Parts) -> KernelPattern:
        """Return the pattern with the library of a structure, for projecting again and again."""
        drawn = ("".join("o" if f else "-" for f in flags) for flags in parts["library"])
        return replace(self, fixed="/".join(dict.fromkeys(d for d in drawn if d.count("o") == self.entries)))

    def refusal(self, shape: Shape, groups: int = 1) -> str | None:
        """Return why the pattern does not fit: kernels are not 3×3."""
        if shape[2] != POSITIONS:
            return (
                f"kernel patterns are for 3×3 kernels; these have {shape[2]} positions instead of {POSITIONS}"
            )
        return None

    def layout(self, shape: Shape) -> Mapping[str, Part]:
        """Return the library and the choice of every kernel, the last for one that has left."""
        return {
            "library": Part((self.library, POSITIONS)),
            "choice": Part((shape[0], shape[1]), self.library + 1),
        }

    def flaw(self, parts: Parts, shape: Shape) -> str | None:
        """Return what is wrong with the library: rows of other sizes, or none of those that are fixed."""
        library = parts["library"].astype(bool)
        library = library[library.any(1)]  # empty rows are padding
        if (library.sum(1) != self.entries).any():
            return f"its library has patterns that do not keep {self.entries} positions"
        if self.fixed and not (library[:, None] == self._given).all(2).any(1).all():
            return f"its library has patterns besides {self.fixed}"
        return None

    def select(self, energy: Tensor, sparsity: float) -> Parts:
        """Return the structure that keeps the most energy; a fraction of the kernels leaves."""
        kernels = _kernels(energy)
        library = self._library(kernels)
        kept = kernels @ library.T.astype(kernels.dtype)
        choice = kept.argmax(1)
        stays = keep_largest(torch.from_numpy(kept[np.arange(len(choice)), choice]), sparsity)
        choice = np.where(stays, choice, self.library).astype(np.uint8)
        padded = np.zeros((self.library, POSITIONS), dtype=bool)
        padded[: len(library)] = library
        return {"library": padded, "choice": choice.reshape(energy.shape[:2])}

    def mask(self, parts: Parts, shape: Shape) -> Tensor:
        """Return True where a kernel keeps a position."""
        flags = np.concatenate([parts["library"], np.zeros((1, POSITIONS), dtype=bool)])
        return torch.from_numpy(flags[parts["choice"].astype(np.int64)])

    def units(self, energy: Tensor) -> Tensor:
        """Return the energy of every kernel under the pattern that keeps most of it."""
        library = torch.from_numpy(self._library(_kernels(energy)))
        kernels = wide(energy).reshape(-1, POSITIONS)
        return (kernels @ library.T.to(kernels)).amax(1)

    def groups(self, energy: Tensor) -> tuple[Tensor, ...]:
        """Return the energies of whole kernels, and of single weights: either may go."""
        return energy.sum(2).reshape(-1), energy.reshape(-1)

    def sparsities(self, shape: Shape) -> tuple[float, float]:
        """Return the smallest and the largest weight sparsity: no kernel leaves, or all but one."""
        density = self.entries / POSITIONS
        return 1 - density, 1 - density / (shape[0] * shape[1])

    def unit_sparsity(self, weight_sparsity: float, shape: Shape) -> float:
        """Return the fraction of kernels that leave for this fraction of zeros."""
        return max(0.0, 1 - (1 - weight_sparsity) * POSITIONS / self.entries)

    def _library(self, kernels: Array) -> npt.NDArray[np.bool_]:
        return self._given if self.fixed else common_patterns(kernels, self.entries, self.library)

    @cached_property
    def _given(self) -> npt.NDArray[np.bool_]:
        return np.array([[c == "o" for c in drawn] for drawn in self.fixed.split("/")])


def common_patterns(kernels: Array, entries: int, most: int) -> npt.NDArray[np.bool_]:
    """Return the natural patterns of most kernels, the most frequent first: [at most `most`, 9].

    A natural pattern is that of the `entries` largest of a kernel; of equal ones, the first. Of equally
    frequent patterns, the one that keeps more comes first, then the one with the earlier positions. Kernels
    that are zero already have no say unless all of them are.
    """
    columns = np.ascontiguousarray(kernels.T)
    # How many positions come before each, in the order of size: faster than sorting millions of nine numbers.
    rank = np.zeros(columns.shape, dtype=np.uint8)
    for i in range(POSITIONS):
        for j in range(i + 1, POSITIONS):
            first = columns[i] >= columns[j]
            rank[j] += first
            rank[i] += ~first
    stays = rank < entries
    codes = np.zeros(len(kernels), dtype=np.int64)
    for i in range(POSITIONS):
        codes = 2 * codes + stays[i]
    energy = np.where(stays, columns, 0).sum(0, dtype=np.float64)
    if (energy > 0).any():
        codes, energy = codes[energy > 0], energy[energy > 0]
    frequency = np.bincount(codes, minlength=2**POSITIONS)
    kept = np.bincount(codes, weights=energy, minlength=2**POSITIONS)
    order = np.lexsort((-np.arange(2**POSITIONS), -kept, -frequency))
    return _flags(order[: min(most, int((frequency > 0).sum()))])


def _kernels(energy: Tensor) -> Array:
    return ordered(energy.detach().cpu()).reshape(-1, POSITIONS).numpy()


def _flags(codes: Array) -> npt.NDArray[np.bool_]:
    flags: npt.NDArray[np.bool_] = (codes[:, None] >> np.arange(POSITIONS - 1, -1, -1) & 1).astype(bool)
    return flags


ENTRY = KernelPattern
