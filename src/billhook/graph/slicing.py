"""Cut tensors to what a plan keeps, and copy a module around the cut tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from billhook.errors import ApplyError
from billhook.graph.capture import caches
from billhook.graph.constants import Kept, Mask


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield all parameters and buffers, shared ones under each of their names."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def hollow(model: nn.Module, kept: Kept, names: Mapping[str, object]) -> dict[str, Tensor]:
    """Return a tensor of the smaller shape for every parameter and buffer in `names`; `fill` fills them.

    Those of branches that are gone are left out. Only those that are no floating-point numbers (indices,
    counters) have their values already, because a network cannot run with others.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in named_tensors(model):
        if name not in names or name in result or name in kept.tensors:
            continue
        masks = kept.tensor(name, tensor.dim())
        if tensor.is_floating_point():
            shape = [s if m is None else int(m.sum()) for s, m in zip(tensor.shape, masks, strict=True)]
            small = tensor.detach().new_empty(shape)
        else:
            small = cut_named(name, tensor, kept).clone()
        result[name] = (
            nn.Parameter(small, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else small
        )
    return result


def fill(tensors: Mapping[str, Tensor], model: nn.Module, kept: Kept) -> None:
    """Give every tensor that `hollow` made the values of `model` that stay; they share no memory with it."""
    with torch.no_grad():
        for name, tensor in named_tensors(model):
            if name in tensors:
                tensors[name].copy_(cut_named(name, tensor, kept))


def cut_named(name: str, tensor: Tensor, kept: Kept) -> Tensor:
    """Return what stays of a named tensor; channel numbers in it become those of the smaller network.

    The number of a channel that leaves becomes -1.
    """
    result = cut(tensor, kept.tensor(name, tensor.dim()))
    numbered = kept.numbered(name)
    if numbered is None:
        return result
    new = torch.from_numpy(np.append(np.where(numbered, np.cumsum(numbered) - 1, -1), -1))
    return new.to(result.device)[result]  # the number -1 finds the last entry


def cut(tensor: Tensor, masks: Sequence[Mask | None]) -> Tensor:
    """Return what the masks keep along each axis, as a new tensor if anything leaves."""
    result = tensor.detach()
    for axis, mask in enumerate(masks):
        if mask is not None:
            result = result.index_select(axis, torch.from_numpy(mask.nonzero()[0]).to(tensor.device))
    return result


def copy_around(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return a deep copy of `model` that holds `tensors` in place of its own of the same names.

    The large tensors are never copied whole: the copy is told that they have been copied already.
    """
    memo: dict[int, object] = {id(t): tensors[n] for n, t in named_tensors(model) if n in tensors}
    try:
        copied = copy.deepcopy(model, memo)
    except Exception as e:
        raise ApplyError(
            f"{type(model).__name__} cannot be copied ({type(e).__name__}: {e}); "
            "modules must support copy.deepcopy"
        ) from e
    for module in copied.modules():
        for name in caches(module):
            setattr(module, name, {})
    return copied
