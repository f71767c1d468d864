"""Tensors of a file: those with a pattern as the few numbers that they consist of, others as they are.

A tensor "conv.weight" with a structure becomes one entry per kind of number, "conv.weight::values", and one
per array of the structure, "conv.weight::structure.keep". What the entries mean is written beside them, so
that a file can be read without its plan. All of it is hostile until it has been checked.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from billhook.errors import StorageError
from billhook.graph.packing import pack
from billhook.graph.structure import FLOATS, Structure, require_fit, view_shape

Tensors = dict[str, Tensor]
Structures = Mapping[str, Structure]

MARK, OF_STRUCTURE = "::", "structure."
MIN_WEIGHTS = 2**28  # a file may unpack to as many weights, however small it is,
WEIGHTS_PER_BYTE = 1000  # or to as many times its size: what claims more was made to fill the memory


def encoded(tensors: Mapping[str, Tensor], structures: Structures) -> tuple[Tensors, dict[str, Any]]:
    """Return the entries of a file and, as plain data for JSON, what they mean.

    Raises:
        PlanError: if a structure does not fit its tensor.
        StorageError: if a tensor does not have its structure, number by number.
    """
    if not structures:
        return dict(tensors), {}
    for name in tensors:
        if MARK in name:
            raise StorageError(
                f"{name!r} cannot be stored beside patterns: {MARK!r} in its name has a meaning"
            )
    for name, structure in structures.items():
        require_fit(name, tensors.get(name), structure)
    entries: Tensors = {}
    for name, tensor in tensors.items():
        entries |= {name: tensor} if name not in structures else _entries(name, tensor, structures[name])
    return entries, {n: _described(s) for n, s in structures.items()}


def decoded(
    entries: Mapping[str, Tensor], described: Any, size: int, where: str
) -> tuple[Tensors, dict[str, Structure]]:
    """Return the tensors of a file in full and the structures that some of them have.

    Args:
        entries: Of the file.
        described: What the entries mean, as `encoded` told it.
        size: Of the file in bytes.
        where: The file's name, for messages.
    Raises:
        StorageError: if anything is missing, too much, of another type or size; names the tensor.
    """
    if not isinstance(described, dict) or not all(isinstance(d, dict) for d in described.values()):
        raise StorageError(f"{where}: what it says of its patterns is no table of tensors")
    tensors: Tensors = {}
    parts: dict[str, Tensors] = {}
    for entry, tensor in entries.items():
        name, mark, part = entry.partition(MARK)
        if mark:
            parts.setdefault(name, {})[part] = tensor
        else:
            tensors[entry] = tensor
    for name in (*described, *parts):
        if name not in described or name not in parts or name in tensors:
            what = (
                "no pattern" if name not in described else "no numbers" if name not in parts else "two forms"
            )
            raise StorageError(f"{where}: {name!r} has {what}; the file was changed or is damaged")
    room = max(MIN_WEIGHTS, WEIGHTS_PER_BYTE * size)
    structures: dict[str, Structure] = {}
    for name, description in described.items():
        try:
            room -= _weights(description)
            if room < 0:
                raise ValueError("more weights than a file of this size can hold")
            structures[name], tensors[name] = _decoded(description, parts[name])
        except ValueError as e:
            raise StorageError(f"{where}: {name!r} cannot be read: {e}") from None
    return tensors, structures


def require_equal(found: Structures, wanted: Structures, where: str) -> None:
    """Raise `StorageError` unless a file has the structures that its plan demands, and no others."""
    for name in (*wanted, *found):
        if name not in found or name not in wanted:
            has, lacks = (where, "the plan") if name in found else ("the plan", where)
            raise StorageError(
                f"{has} has a pattern for {name!r}, {lacks} has none; they do not belong together"
            )
        if found[name] != wanted[name]:
            raise StorageError(
                f"{where}: {name!r} has another structure than the plan demands; they do not belong together"
            )


def _entries(name: str, tensor: Tensor, structure: Structure) -> Tensors:
    tensor = tensor.detach().cpu()
    numbers = structure.encode(tensor)
    if not _same(structure.decode(numbers), tensor):
        raise StorageError(
            f"{name!r} does not have the structure that the plan demands ({structure.pattern}), so that it "
            "cannot be stored in it: apply the plan first, and train with the callback "
            "billhook.train.holding.HoldPatterns, which keeps patterns as they are"
        )
    packed = {
        OF_STRUCTURE + part: torch.from_numpy(pack(structure.parts[part], levels))
        for part, levels in _levels(structure).items()
    }
    return {name + MARK + key: value.contiguous() for key, value in {**numbers, **packed}.items()}


def _decoded(description: Any, entries: Tensors) -> tuple[Structure, Tensor]:
    """Return a structure and its tensor; raises `ValueError`."""
    numbers = {n: t for n, t in entries.items() if not n.startswith(OF_STRUCTURE)}
    packed = {n.removeprefix(OF_STRUCTURE): t for n, t in entries.items() if n not in numbers}
    structure = Structure.from_dict({**description, "parts": {n: _as_text(n, t) for n, t in packed.items()}})
    for part, levels in _levels(structure).items():
        if pack(structure.parts[part], levels).tobytes() != packed[part].numpy().tobytes():
            raise ValueError(f"{part!r} of its structure is not written as it should be")
    kinds = {t.dtype for n, t in numbers.items() if n in FLOATS}
    if len(kinds) != 1 or not next(iter(kinds)).is_floating_point:
        raise ValueError(f"numbers of the types {sorted(map(str, kinds))}, expected one type of floats")
    expected = structure.encode(torch.zeros(structure.shape, dtype=kinds.pop()))
    found, wanted = ({n: _form(t) for n, t in sorted(ts.items())} for ts in (numbers, expected))
    if found != wanted:
        raise ValueError(f"numbers {found}, expected {wanted}")
    return structure, structure.decode(numbers)


def _described(structure: Structure) -> dict[str, Any]:
    data = structure.to_dict()
    del data["parts"]
    return data


def _weights(description: Mapping[str, Any]) -> int:
    shape = description.get("shape")
    if not isinstance(shape, list) or not all(type(s) is int and s > 0 for s in shape) or len(shape) > 8:
        raise ValueError(f"shape {shape!r}")
    return prod(shape)


def _levels(structure: Structure) -> dict[str, int]:
    view = view_shape(structure.shape, structure.transposed)
    return {name: part.levels for name, part in structure.pattern.layout(view).items()}


def _as_text(name: str, packed: Tensor) -> str:
    """Return packed bytes in the form in which a plan has them, so that the same checks read both."""
    if packed.dtype != torch.uint8 or packed.dim() != 1:
        raise ValueError(f"{name!r} of its structure is {_form(packed)}, expected bytes")
    return base64.b64encode(zlib.compress(packed.numpy().tobytes(), 1)).decode("ascii")


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _same(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | (a.isnan() & b.isnan())).all())
