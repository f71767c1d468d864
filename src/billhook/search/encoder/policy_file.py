"""A trained policy as a safetensors file: weights, and a header that says whose; never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from billhook.errors import StorageError
from billhook.graph.storage import write_tensors

_FORMAT = "billhook.policy/1"
_TOLD = "billhook.tensors/1"  # where `write_tensors` puts what a file says about itself


def save_policy(path: Path, modules: nn.Module, made: Mapping[str, str]) -> None:
    """Write the weights of a policy; the file appears whole or not at all.

    Args:
        path: The file.
        modules: Everything that goes on learning elsewhere.
        made: Which encoder and agent it is; `load_policy` asks for the same.
    Raises:
        StorageError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shapes = json.dumps({n: list(t.shape) for n, t in modules.state_dict().items()})
        write_tensors(path, modules, {"format": _FORMAT, "shapes": shapes, **made})
    except OSError as e:
        raise StorageError(f"cannot write the policy to {path}: {e}") from e


def load_policy(path: str | Path, modules: nn.Module, made: Mapping[str, str]) -> None:
    """Put the weights of a file into a policy, all or none.

    Nothing is read before names, shapes and types have been compared, so that no file costs more memory than
    the policy has.

    Raises:
        StorageError: if the file is missing or broken, holds another kind of policy, or values that are no
            numbers; says what to do.
    """
    own = modules.state_dict()
    try:
        with safe_open(path, "pt") as file:
            _check_header(_told(file.metadata(), path), own, made, path)
            names = set(file.keys())
            if names != set(own):
                different = ", ".join(sorted(names ^ set(own))[:5])
                raise StorageError(f"{path} does not fit the policy: only one of them has {different}")
            for name, tensor in own.items():
                part = file.get_slice(name)
                if tuple(part.get_shape()) != tuple(tensor.shape) or part.get_dtype() != "F32":
                    raise StorageError(
                        f"{path} does not fit the policy: {name} is {part.get_dtype()} {part.get_shape()}, "
                        f"expected F32 {list(tensor.shape)}"
                    )
            tensors = {name: file.get_tensor(name) for name in own}
    except (SafetensorError, OSError, ValueError) as e:
        raise StorageError(f"{path} is missing, truncated or not a safetensors file: {e}") from None
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise StorageError(f"{path}: {name} has values that are no numbers; train the policy again")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def _told(metadata: Mapping[str, str] | None, path: str | Path) -> dict[str, Any]:
    try:
        told = json.loads((metadata or {}).get(_TOLD, "null"))
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or told.get("format") != _FORMAT:
        raise StorageError(
            f"{path} is not a policy that billhook has saved; give the file that a search with 'agmc' names "
            "at its end"
        )
    return told


def _check_header(
    told: Mapping[str, Any], own: Mapping[str, torch.Tensor], made: Mapping[str, str], path: str | Path
) -> None:
    for name, value in made.items():
        if told.get(name) != value:
            raise StorageError(
                f"{path} was trained with {name}={told.get(name)!r}, this search has {name}={value!r}; "
                "give the same"
            )
    try:
        shapes = json.loads(told.get("shapes", "null"))
    except (ValueError, RecursionError, TypeError):
        shapes = None
    if shapes != {n: list(t.shape) for n, t in own.items()}:
        raise StorageError(f"{path} does not fit the policy: its header names other shapes of weights")
