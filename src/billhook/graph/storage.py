"""Save and load a smaller network: a plan and its tensors, never a pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from billhook.errors import CaptureError, PlanError, StorageError
from billhook.graph import inputs as example
from billhook.graph.apply import apply
from billhook.graph.encoding import decoded, encoded, require_equal
from billhook.graph.fusions import fused
from billhook.graph.graph import capture_call, mixing_of
from billhook.graph.layers import LayeredNetwork
from billhook.graph.plan import Plan
from billhook.graph.structure import Structure

PLAN, WEIGHTS = "plan.json", "weights.safetensors"
_TOLD = "billhook.tensors/1"  # the one entry of a file's metadata: several would be written in any order
_PATTERNS = "patterns"  # in that entry


def save(directory: str | Path, model: nn.Module, plan: Plan) -> None:
    """Write `plan.json` and `weights.safetensors` into `directory` (made if missing).

    `model` may be the smaller network (fine-tuned or not) or the original, which is then made smaller first.
    Where channels stay and only patterns are demanded, nothing tells the two apart: then `model` must be the
    sparse network. A weight with a pattern takes the bytes of its numbers and its structure (see
    `billhook.graph.encoding`). Each file appears whole or not at all.

    Raises:
        PlanError: if `model` is neither.
        StorageError: if the files cannot be written, or if a weight does not have the pattern that the plan
            demands, as after training that did not hold it.
    """
    if not isinstance(model, LayeredNetwork):
        model = fused(model, plan)
    same_size = bool(plan.patterns) and not plan.removed
    small = model if same_size or not _is_original(model, plan) else apply(model, plan)
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_tensors(directory / WEIGHTS, small, {"fingerprint": plan.fingerprint}, plan.patterns)
        plan.save(directory / PLAN)
    except OSError as e:
        raise StorageError(f"cannot write the network to {directory}: {e}") from e


def load(directory: str | Path, model_factory: Callable[[], nn.Module]) -> nn.Module:
    """Return the smaller network that `save` wrote.

    Args:
        directory: Where `save` wrote.
        model_factory: Makes the original network, with any weights; called once.
    Raises:
        StorageError: if files are missing, truncated or do not fit together; says which.
        PlanError: if the plan is corrupted or `model_factory` makes another network.
    """
    directory = Path(directory)
    for name in (PLAN, WEIGHTS):
        if not (directory / name).is_file():
            raise StorageError(
                f"{directory / name} is missing; give a directory written by billhook.save or compress"
            )
    plan = Plan.load(directory / PLAN)
    tensors = read_tensors(directory / WEIGHTS, plan.patterns)
    small = apply(model_factory(), plan)
    load_tensors(small, tensors, str(directory / WEIGHTS))
    return small


def write_tensors(
    path: Path,
    network: nn.Module,
    metadata: Mapping[str, str] | None = None,
    structures: Mapping[str, Structure] | None = None,
) -> None:
    """Write the state of `network`; the file appears whole or not at all.

    Args:
        path: The file.
        network: Whose tensors.
        metadata: What else the file says.
        structures: Of weights that are stored as the few numbers they consist of.
    Raises:
        StorageError: if it cannot be written, or a weight does not have its structure; a full disk stays the
            `OSError` it is.
    """
    entries, description = encoded(_unique(network, structures or {}), structures or {})
    told = {**(metadata or {}), **({_PATTERNS: description} if description else {})}
    part = path.with_name(path.name + ".part")
    try:
        save_file(entries, part, {_TOLD: json.dumps(told, sort_keys=True)})
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)  # safetensors makes files that nobody else may read
        os.replace(part, path)
    except SafetensorError as e:
        raise StorageError(f"{path}: cannot be written: {e}") from None
    finally:
        part.unlink(missing_ok=True)


def read_tensors(path: str | Path, structures: Mapping[str, Structure] | None = None) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file in full, those that are stored with a pattern too.

    Needs neither a network nor a plan.

    Args:
        path: The file.
        structures: What its weights must have, and nothing else; None takes what there is.
    Raises:
        StorageError: if the file is broken, or has other structures; names the tensor.
    """
    try:
        with safe_open(path, "pt") as file:
            entries = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            text = (file.metadata() or {}).get(_TOLD)
        size = Path(path).stat().st_size
    except (SafetensorError, OSError, ValueError) as e:
        raise StorageError(f"{path} is truncated or not a safetensors file: {e}") from None
    told = {} if text is None else _told(text, path)
    tensors, found = entries, dict[str, Structure]()
    if _PATTERNS in told:
        tensors, found = decoded(entries, told[_PATTERNS], size, str(path))
    if structures is not None:
        require_equal(found, structures, str(path))
    return tensors


def _told(text: str, path: str | Path) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise StorageError(f"{path}: what it says of its tensors is not valid JSON: {e}") from None
    if not isinstance(data, dict):
        raise StorageError(f"{path}: what it says of its tensors is no table")
    return data


def load_tensors(network: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Put `tensors` into `network`; every name and shape must fit (shared tensors may have one name only)."""
    own = network.state_dict()
    covered = {t.data_ptr() for n, t in own.items() if n in tensors and t.numel()}
    problems = [f"missing {n}" for n, t in own.items() if n not in tensors and t.data_ptr() not in covered]
    problems += [f"unexpected {n}" for n in tensors if n not in own]
    problems += [
        f"{n} has shape {tuple(t.shape)}, the network needs {tuple(own[n].shape)}"
        for n, t in tensors.items()
        if n in own and own[n].shape != t.shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise StorageError(f"{source} does not fit the network: {'; '.join(problems[:5])}{more}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def _unique(network: nn.Module, structures: Mapping[str, Structure]) -> dict[str, Tensor]:
    """Return the state with shared tensors under one name: that of their structure, or the first."""
    seen: set[tuple[int, tuple[int, ...]]] = set()
    result: dict[str, Tensor] = {}
    for name, tensor in sorted(network.state_dict().items(), key=lambda item: item[0] not in structures):
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if tensor.numel() and key in seen:
            continue
        seen.add(key)
        result[name] = tensor.contiguous()
    return result


def _is_original(model: nn.Module, plan: Plan) -> bool:
    """Return True if the plan can still be applied to `model`, False if it has been."""
    graph = plan.graph
    if graph is None:
        try:
            graph = capture_call(model, example.synthesize(plan.inputs), mixing_of(plan))
        except CaptureError:  # a smaller network may not be captured any more; `load` checks every shape
            return False
    own = {n: tuple(t.shape) for n, t in [*model.named_parameters(), *model.named_buffers()]}
    if graph.fingerprint != plan.fingerprint:
        return False
    if all(own.get(n) == s for n, s in graph.program.shapes.items()):
        return True
    masks = graph.kept(plan)
    for name, shape in graph.program.shapes.items():
        left = masks.tensor(name, len(shape))
        small = tuple(s if m is None else int(m.sum()) for s, m in zip(shape, left, strict=True))
        if name in own and own[name] != small:
            raise PlanError(
                f"{name} has shape {own[name]}: neither the original's {shape} nor the plan's {small}"
            )
    return False
