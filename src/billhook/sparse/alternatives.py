"""Which pattern each layer gets of a text such as "kernel_pattern|4x1|dense", or of one text by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from billhook.errors import InputError, NameNotFoundError
from billhook.graph import Scope
from billhook.graph.patterns import Pattern, parse_pattern
from billhook.graph.weights import WeightLayer

Patterns = str | Mapping[str, str]


def fitting_patterns(
    layers: Sequence[WeightLayer], pattern: Patterns, scope: Scope | None = None
) -> dict[str, Pattern]:
    """Return the pattern of every weight that shall have one.

    Raises:
        InputError: if none of the alternatives fits a layer; names all such layers and why.
        ScopeError: if a pattern of the scope matches nothing.
    """
    chosen = (scope or Scope()).select_weights(layers)
    texts = pattern.values() if isinstance(pattern, Mapping) else (pattern,)
    for text in texts:
        if not isinstance(text, str):
            raise InputError(
                f"pattern={text!r}: expected a text such as '4x1', or a mapping of names to texts"
            )
    if isinstance(pattern, Mapping):
        wanted = _by_name(pattern, layers, chosen)
    else:
        wanted = {layer.tensor: pattern for layer in chosen}
    read = {text: [_alternative(part) for part in text.split("|")] for text in set(wanted.values())}
    found: dict[str, Pattern] = {}
    problems: list[str] = []
    for layer in chosen:
        if layer.tensor not in wanted:
            continue
        reasons = []
        for alternative in read[wanted[layer.tensor]]:
            reason = None if alternative is None else layer.refusal(alternative)
            if reason is None:
                if alternative is not None:
                    found[layer.tensor] = alternative
                break
            reasons.append(f"{alternative}: {reason}")
        else:
            problems.append(f"{layer.tensor} {list(layer.shape)} ({'; '.join(reasons)})")
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InputError(
            f"the pattern does not fit every layer in scope: {'; '.join(problems[:5])}{more}. Exclude these "
            "layers, give them another pattern ('kernel_pattern|4x1'), or leave them dense ('4x1|dense')"
        )
    if not found:
        raise InputError("no layer in scope has a pattern: nothing would become sparse")
    return found


def _by_name(
    pattern: Mapping[str, str], layers: Sequence[WeightLayer], chosen: Sequence[WeightLayer]
) -> dict[str, str]:
    """Return the text for every weight that one of its names has; its own name says more than its layers'."""
    known = set().union(*(layer.names for layer in layers))
    for name in pattern:
        if name not in known:
            raise NameNotFoundError("weight", name, known)
    wanted: dict[str, str] = {}
    for layer in chosen:
        names = (layer.tensor,) if layer.tensor in pattern else layer.names
        texts = {pattern[name] for name in names if name in pattern}
        if len(texts) > 1:
            raise InputError(f"{layer.tensor!r} has several names with different patterns: {sorted(texts)}")
        if texts:
            wanted[layer.tensor] = texts.pop()
    return wanted


def _alternative(text: str) -> Pattern | None:
    return None if text.strip() == "dense" else parse_pattern(text)
