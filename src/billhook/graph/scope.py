"""`Scope`: which groups a method may touch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from billhook.errors import ScopeError, suggest
from billhook.graph.groups import ChannelGroup, Groups
from billhook.graph.weights import WeightLayer


@dataclass(frozen=True)
class Scope:
    """Include and exclude patterns (shell wildcards) over names of groups, layers and tensors.

    A group is in scope if an include pattern matches one of its names and no exclude pattern does. Its
    names are its id, the names of its tensors and of all layers that own them ("layer1", "layer1.0", …).
    """

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    def select(self, groups: Groups | Sequence[ChannelGroup]) -> tuple[ChannelGroup, ...]:
        """Return the prunable groups in scope.

        Raises:
            ScopeError: if a pattern matches nothing; all such patterns at once, with close names. If all that
                the patterns include is frozen; says why.
        """
        included = [groups[i] for i in self._matching([_names(g) for g in groups], "group, layer or tensor")]
        chosen = tuple(g for g in included if g.prunable)
        if included and not chosen and self.include != ("*",):
            first = included[0]
            raise ScopeError(
                f"nothing in scope may leave: group {first.id!r} is frozen ({first.frozen})"
                + (f", and so are {len(included) - 1} more" if len(included) > 1 else "")
                + "; choose other groups, `billhook inspect` lists them"
            )
        return chosen

    def select_weights(self, layers: Sequence[WeightLayer]) -> tuple[WeightLayer, ...]:
        """Return the layers in scope, by all names of their weights and of the modules these live in.

        Raises:
            ScopeError: if a pattern matches nothing; all such patterns at once, with close names.
        """
        names = [set().union(*map(_prefixes, layer.names)) for layer in layers]
        return tuple(layers[i] for i in self._matching(names, "layer or weight"))

    def _matching(self, names: Sequence[set[str]], what: str) -> list[int]:
        """Return where an include pattern matches one of the names and no exclude pattern does."""
        everything = set().union(*names) if names else set()
        problems = [
            f"scope pattern {p!r} matches no {what}{suggest(p, everything)}"
            for p in (*self.include, *self.exclude)
            if not _matches(p, everything)
        ]
        if problems:
            raise ScopeError("; ".join(problems))
        return [
            i
            for i, own in enumerate(names)
            if any(_matches(p, own) for p in self.include) and not any(_matches(p, own) for p in self.exclude)
        ]


def _matches(pattern: str, names: Iterable[str]) -> bool:
    return any(fnmatchcase(n, pattern) for n in names)


def _names(group: ChannelGroup) -> set[str]:
    names = {group.id}
    for member in group.members:
        if member.role == "in":
            continue  # a group belongs to the layers that make its channels, not to those that read them
        names |= _prefixes(member.tensor)
    return names


def _prefixes(tensor: str) -> set[str]:
    """Return the name of a tensor and those of all modules around it."""
    parts = tensor.split(".")
    return {".".join(parts[:i]) for i in range(1, len(parts) + 1)}
