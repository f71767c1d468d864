"""Nested state to plain JSON plus named tensors, and back: checkpoints without a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from billhook.errors import InputError


def split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return `value` as plain data for JSON, moving its tensors into `tensors`.

    Lists, tuples and dicts keep their type and their keys (text or integers); numbers are exact.

    Args:
        value: Nested state; leaves are tensors, numbers, text, booleans or None.
        name: What the value is called in an error message and in the tensors' names.
        tensors: Receives the tensors.
    Raises:
        InputError: if something else is in it; names the place.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        key = f"{len(tensors)}:{name}"
        tensors[key] = value.detach()
        return {"tensor": key}
    if isinstance(value, Mapping):
        for key in value:
            if type(key) not in (str, int):
                raise InputError(f"{name} has the key {key!r}; only text and integers can be saved")
        return {"dict": [[k, split(v, f"{name}.{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [split(v, f"{name}[{i}]", tensors) for i, v in enumerate(value)]}
    raise InputError(
        f"{name} is a {type(value).__name__}, which a checkpoint cannot hold; use tensors, numbers, text, "
        "lists and dicts"
    )


def join(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the value that `split` took apart.

    Raises:
        ValueError, KeyError, TypeError: if `tree` does not come from `split`.
    """
    if not isinstance(tree, dict):
        return tree
    (kind, content), *more = tree.items()
    if more:
        raise ValueError("node with several kinds")
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: join(value, tensors) for key, value in content}
    if kind in ("list", "tuple"):
        values = [join(value, tensors) for value in content]
        return values if kind == "list" else tuple(values)
    raise ValueError(f"unknown node {kind!r}")


def own_storage(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors on the CPU in plain layout, none sharing memory with another."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        plain = tensor.cpu().contiguous()
        pointer = plain.untyped_storage().data_ptr()
        result[name] = plain.clone() if pointer in seen else plain
        seen.add(pointer)
    return result


def byte_view(tensor: Tensor) -> Any:
    """Return the bytes of a tensor on the CPU in plain layout, as a buffer that is not copied."""
    return tensor.reshape(-1).view(torch.uint8).numpy()
