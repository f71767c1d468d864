"""What to do where blocks do not divide a weight: the option `remainder` and its message."""

from __future__ import annotations

from billhook.graph.patterns import Shape
from billhook.options import OneOf, option


def remainder_option() -> str:
    """Return the option that says whether blocks at the borders may be smaller."""
    text: str = option("pad", OneOf("pad", "refuse"), "what to do where blocks do not divide a layer")
    return text


def misfit(rows: int, columns: int, shape: Shape, groups: int, remainder: str) -> str | None:
    """Return why blocks of rows × columns do not fit a weight, None if they do.

    Args:
        rows: Of a block, at most as many as there are outputs.
        columns: The same for inputs.
        shape: Of the weight.
        groups: Of a convolution; no block may reach over two of them.
        remainder: "pad": blocks at the borders may be smaller; "refuse": they may not.
    """
    outputs, inputs = shape[0] // groups, shape[1]
    if groups > 1 and outputs % rows:
        return f"blocks of {rows} outputs reach over the {groups} groups of {outputs} outputs"
    if remainder == "refuse" and (outputs % rows or inputs % columns):
        return f"blocks of {rows}×{columns} do not divide {outputs} outputs × {inputs} inputs"
    return None
