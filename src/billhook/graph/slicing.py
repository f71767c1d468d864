"""Cut tensors to what a plan keeps, and copy a module around the cut tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from billhook.errors import ApplyError
from billhook.graph.capture import caches
from billhook.graph.constants import Kept


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield all parameters and buffers, shared ones under each of their names."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def sliced(model: nn.Module, kept: Kept, names: Mapping[str, object]) -> dict[str, Tensor]:
    """Return every parameter and buffer in `names`, cut to what stays.

    Tensors that lose something are new; the others are copies, so that the networks share no memory.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in named_tensors(model):
        if name not in names or name in result:
            continue
        cut = tensor.detach()
        for axis, mask in enumerate(kept.tensor(name, tensor.dim())):
            if mask is not None:
                cut = cut.index_select(axis, torch.from_numpy(mask.nonzero()[0]).to(tensor.device))
        cut = cut.clone() if cut.data_ptr() == tensor.data_ptr() else cut
        result[name] = nn.Parameter(cut, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else cut
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
