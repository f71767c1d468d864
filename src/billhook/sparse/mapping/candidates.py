"""Which patterns a layer may get: the legal list of its type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

from billhook.errors import InputError
from billhook.graph.patterns import Pattern, Shape, patterns
from billhook.graph.weights import WeightLayer
from billhook.options import configure
from billhook.sparse.mapping.latency_table import outputs_of_group
from billhook.sparse.patterns._blocks import Blocks

Size = tuple[int, int]

# (outputs, inputs) of a block. As large as the layer, in one column, is the coarsest: it prunes columns.
WHOLE: Size = (0, 1)
SIZES: tuple[Size, ...] = (
    *((4, 1), (8, 1), (4, 4), (8, 4), (16, 1), (16, 4), (16, 16), (32, 1), (32, 16)),
    WHOLE,
)
TASKS = ("easy", "hard")


def legal(layer: WeightLayer, *, sizes: Sequence[Size] = SIZES) -> tuple[Pattern, ...]:
    """Return the patterns that a layer may get besides "dense", the smallest blocks first.

    None for a depthwise convolution, which is cheap and sensitive. Kernel patterns and block-punched for 3×3
    convolutions; block-punched for all others; block-based for linear layers. What refuses the shape of the
    layer is left out, and so are blocks larger than the layer.

    References:
        Gong et al., 2022 (arXiv:2111.11581), rules 1 to 3; the sizes of blocks are ours.
    """
    blocks = block_patterns(layer, sizes=sizes)
    kernel = kernel_pattern(layer)
    return blocks if kernel is None else (kernel, *blocks)


def kernel_pattern(layer: WeightLayer) -> Pattern | None:
    """Return the kernel pattern of a 3×3 convolution, None if it does not fit the layer."""
    if layer.kind != "conv" or layer.depthwise or layer.kernel != (3, 3):
        return None
    pattern = _configured("kernel_pattern", {})
    return pattern if layer.refusal(pattern) is None else None


def block_patterns(layer: WeightLayer, *, sizes: Sequence[Size] = SIZES) -> tuple[Pattern, ...]:
    """Return the block patterns that fit a layer, the smallest blocks first."""
    if layer.depthwise:
        return ()
    found: dict[Shape, Pattern] = {}
    outputs = outputs_of_group(layer)
    given = {(outputs, 1) if size == WHOLE else size for size in map(_checked, sizes)}
    for rows, columns in sorted(given, key=lambda s: (s[0] * s[1], s)):
        if rows > outputs or columns > layer.view[1]:
            continue
        pattern = block_pattern(layer, rows, columns)
        if layer.refusal(pattern) is None:
            # Blocks of a linear layer lose columns, one by one: 4×4 is then the same as 4×1.
            found.setdefault(pattern.block(layer.view), pattern)
    return tuple(found.values())


def block_pattern(layer: WeightLayer, rows: int, columns: int) -> Blocks:
    """Return the pattern with these blocks for a layer of this type."""
    name = "block" if layer.kind == "linear" else "block_punched"
    pattern = _configured(name, {"rows": rows, "columns": columns})
    assert isinstance(pattern, Blocks)
    return pattern


def coarsest(layer: WeightLayer) -> Pattern:
    """Return the coarse structured pattern that rules compare with: columns, over all outputs."""
    return block_pattern(layer, outputs_of_group(layer), 1)


def reach(pattern: Pattern, shape: Shape) -> tuple[float, float]:
    """Return the smallest and the largest fraction of zeros; of blocks without a tensor of that shape."""
    if keeps_blocks(pattern, shape):
        return 0.0, 1 - 1 / pattern.layout(shape)["keep"].shape[0]
    return pattern.sparsities(shape)


def keeps_blocks(pattern: Pattern, shape: Shape) -> TypeGuard[Blocks]:
    """Tell if a structure of this pattern is nothing but which of its disjoint blocks stay."""
    return isinstance(pattern, Blocks) and set(pattern.layout(shape)) == {"keep"}


def _configured(name: str, options: dict[str, Any]) -> Pattern:
    return configure(patterns.get(name), options, what=f"pattern {name!r}")


def _checked(size: Size) -> Size:
    plain = isinstance(size, tuple) and len(size) == 2 and all(type(s) is int for s in size)
    if not plain or (size != WHOLE and min(size) < 1):
        raise InputError(f"sizes: {size!r} is no block; write (outputs, inputs), such as (4, 1), or {WHOLE}")
    return size
