"""From a file of weights into a network: every tensor must fit, or an error says which do not."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from billhook.errors import InputError, StorageError

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # keys under which training scripts nest
_PREFIXES = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile
_ENCODED = "::"  # in names of billhook's files of sparse networks, see billhook.graph.encoding
_SHOWN = 5


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Copy the tensors of a .safetensors or PyTorch file into `model`, in the model's own precision.

    PyTorch files are read with `weights_only=True`: nothing in them is executed. A state dict nested
    under "state_dict" or "model" and the prefixes of DDP and torch.compile are understood. Counters of
    batch norm may be absent. On any error the model is unchanged.

    Raises:
        InputError: if the file does not exist, is of an unknown kind, or its tensors do not fit the
            model, as lists of missing, unexpected and differently shaped ones say, or is billhook's own
            file of a sparse network.
        StorageError: if the file is truncated, damaged, or holds more than tensors.
    """
    path = Path(path)
    found = _tensors(path, read_tensors(path))
    wanted = model.state_dict()
    if any(_ENCODED in name and name not in wanted for name in found):
        raise InputError(
            f"{path} was written by billhook.save for a sparse network: it holds the few numbers that "
            "patterns leave, not whole tensors; read it with billhook.load(directory, model_factory), where "
            "the directory holds its plan.json as well"
        )
    problems = [
        _listed("missing", (name for name in wanted if name not in found and not _is_counter(name))),
        _listed("unexpected", (name for name in found if name not in wanted and not _is_counter(name))),
        _listed(
            "of another shape",
            (
                f"{name} (file {_shape(found[name])}, model {_shape(tensor)})"
                for name, tensor in wanted.items()
                if name in found and found[name].shape != tensor.shape
            ),
        ),
    ]
    if any(problems):
        raise InputError(
            f"{path} does not fit this network: {'; '.join(p for p in problems if p)}. "
            "Check the model's name and its arguments"
        )
    model.load_state_dict({name: found.get(name, tensor) for name, tensor in wanted.items()})


def read_tensors(path: Path) -> Mapping[str, Any]:
    """Return what is in a file of weights; raises as `load_weights`."""
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}; check the path of the weights")
    read: Callable[[Path], Any]
    if path.suffix == ".safetensors":
        read = load_file
    elif path.suffix in (".pth", ".pt", ".bin", ".ckpt"):
        read = _read_torch
    else:
        raise InputError(
            f"{path} is of an unknown kind; weights are .safetensors, .pth, .pt, .bin or .ckpt files"
        )
    try:
        content = read(path)
    except pickle.UnpicklingError as error:
        raise StorageError(
            f"{path} is damaged, or holds Python objects besides tensors, which are never loaded; "
            "save only model.state_dict(), best as .safetensors"
        ) from error
    except (
        SafetensorError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
    ) as error:
        raise StorageError(f"{path} is truncated or damaged ({_first_line(error)}); get it again") from error
    if not isinstance(content, Mapping):
        raise StorageError(
            f"{path} holds a {type(content).__name__}, not named tensors; save model.state_dict()"
        )
    return content


def _read_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _tensors(path: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state dict inside `content`, with plain names."""
    for key in _WRAPPERS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    names = list(content)
    strange = [name for name in names if not isinstance(name, str) or not isinstance(content[name], Tensor)]
    if strange or not names:
        what = f"entries that are no tensors: {strange[:_SHOWN]}" if strange else "no tensors"
        raise StorageError(f"{path} holds {what}; save model.state_dict()")
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in names)), ""):
        content = {name[len(prefix) :]: content[name] for name in names}
        names = list(content)
    return dict(content)


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == "num_batches_tracked"  # only used by batch norm without momentum


def _listed(what: str, names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{what}: {', '.join(found[:_SHOWN])}{more}" if found else ""


def _shape(tensor: Tensor) -> str:
    return "×".join(str(size) for size in tensor.shape) or "scalar"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
