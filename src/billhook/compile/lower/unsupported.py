"""Collects what the engine cannot run, to name it all in one error."""

from __future__ import annotations

from collections import Counter

from torch import fx

from billhook.errors import UnsupportedError
from billhook.graph.capture import source_line


class Unsupported:
    """Operators that could not be lowered so far."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._first: dict[str, tuple[str, str]] = {}

    def add(self, node: fx.Node, name: str, why: str) -> None:
        """Remember an operator, and why it was refused if the engine runs others of its name."""
        self._count[name] += 1
        self._first.setdefault(name, (why, source_line(node)))

    def check(self) -> None:
        """Raise an error if there is any.

        Raises:
            UnsupportedError: names every operator once, with the count and the first line of code.
        """
        if not self._count:
            return
        lines = []
        for name, count in self._count.items():
            why, line = self._first[name]
            times = f" (×{count})" if count > 1 else ""
            lines.append(f"\n  {name}{times}{f' {why}' if why else ''}{f' at {line}' if line else ''}")
        raise UnsupportedError(
            f"billhook's engine cannot run this network, because of {', '.join(self._count)}; replace that, "
            "or use another backend:" + "".join(lines),
            self._count,
        )
