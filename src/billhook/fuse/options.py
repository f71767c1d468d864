"""`Fusion`: what may be rewritten, and how."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from billhook.options import Configurable, OneOf, Words, option

LEVELS = ("none", "conservative", "aggressive")
FOLDING = ("batch_norm", "parallel", "concat", "activation")
OPERATORS = (
    "batch_norm",
    "parallel",
    "activation",
    "add_identity",
    "add_projection",
    "average_pool",
    "concat",
)


@dataclass(frozen=True)
class Fusion(Configurable):
    """Which fusions a network gets; the names are those of the paper's options as far as they are known.

    Conservative fusions only fold parameters, and only when the network is lowered, because training needs
    its batch norms. Aggressive ones make shortcuts, pooling and concatenation prunable before anything is
    pruned.
    """

    level: str = option("aggressive", OneOf(*LEVELS), "how far to go; conservative folds parameters only")
    operators: tuple[str, ...] = option(OPERATORS, Words(*OPERATORS), "what may be rewritten")
    include: tuple[str, ...] = option(("*",), Words(), "patterns of places that may be widened")
    exclude: tuple[str, ...] = option((), Words(), "patterns of places that must not be widened")
    add_form: str = option(
        "chain",
        OneOf("chain", "concat", "group"),
        "what becomes of an addition; group leaves it and its ties",
    )
    copies: str = option(
        "symbolic",
        OneOf("symbolic", "dense"),
        "shortcuts in a chain as lists of channel numbers, or as filters that training may change",
    )
    keep_if: str = option(
        "cost", OneOf("cost", "always"), "keep a fusion if it is measured to be faster, or always"
    )

    def allows(self, operator: str, block: str) -> bool:
        """Return True if `operator` may be rewritten in `block`."""
        if operator not in self.operators or any(fnmatchcase(block, p) for p in self.exclude):
            return False
        return any(fnmatchcase(block, p) for p in self.include)
