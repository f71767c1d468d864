"""From what a user writes for MODEL to a network: a name of the zoo, or a callable in their own code."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from billhook.errors import InputError, suggest
from billhook.models._arguments import build, signature
from billhook.models._registry import models


def resolve(
    spec: str, arguments: Mapping[str, Any] | None = None, *, defaults: Mapping[str, Any] | None = None
) -> nn.Module:
    """Return the network that `spec` names.

    A module given by its dotted name is looked for in the current folder too, as `python -m` does; a
    file sees its own folder first, as `python file.py` does. The user's code runs with the user's rights.

    Args:
        spec: A zoo name ("resnet-20"), "package.module:callable" or "path/file.py:callable".
        arguments: Keyword arguments of the factory.
        defaults: Arguments for networks of the zoo where `arguments` has none and the network knows
            them, e.g. `num_classes` of the data set.
    Raises:
        InputError: if there is no such name, module, file or callable, if it fails, or if it does not
            return an `nn.Module`.
    """
    arguments = dict(arguments or {})
    if ":" not in spec:
        if spec.replace("_", "-") not in models.names():
            raise InputError(_unknown(spec))
        known = signature(spec)
        chosen = {name: value for name, value in (defaults or {}).items() if name in known}
        return build(spec, **{**chosen, **arguments})
    where, _, name = spec.rpartition(":")
    module = _load_file(Path(where)) if where.endswith(".py") else _load_module(where)
    return _call(spec, _callable(module, where, name), arguments)


def _unknown(spec: str) -> str:
    hint = suggest(spec, models.names())
    return f"unknown model {spec!r}{hint} (your own: package.module:callable or path/file.py:callable)"


def _load_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise InputError(
            f"{name!r} is no module name; write package.module:callable or path/file.py:callable"
        )
    with _path_first(Path.cwd()), _users_code(f"importing {name}"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the module exists; something that it imports does not
            raise InputError(
                f"there is no module {error.name!r}; run billhook where it can be imported (the current "
                "folder counts), install it, or name the file: path/file.py:callable"
            ) from None


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}; write path/file.py:callable")
    name = f"billhook_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and torch.export look their module up there
    try:
        with _path_first(path.resolve().parent), _users_code(f"running {path}"):
            spec.loader.exec_module(module)
    except InputError:
        del sys.modules[name]
        raise
    return module


def _callable(module: ModuleType, where: str, name: str) -> Any:
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"{where} has no {name!r}{suggest(name, own)}")
    return getattr(module, name)


def _call(spec: str, factory: Any, arguments: dict[str, Any]) -> nn.Module:
    if isinstance(factory, nn.Module):
        if arguments:
            raise InputError(
                f"{spec} is a finished network, so it takes no arguments: {', '.join(arguments)}"
            )
        return factory
    if not callable(factory):
        raise InputError(
            f"{spec} is of type {type(factory).__name__}; name a function or class that returns a network"
        )
    with _users_code(f"calling {spec}"):
        made = factory(**arguments)
    if not isinstance(made, nn.Module):
        raise InputError(f"{spec} returned a {type(made).__name__} instead of a torch.nn.Module")
    return made


@contextlib.contextmanager
def _users_code(doing: str) -> Iterator[None]:
    """Turn whatever the user's code raises into one message with the line where it happened."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{doing} failed: {type(error).__name__}: {error}{_users_line(error)}") from error


def _users_line(error: Exception) -> str:
    """Return " (file:line)" of the last step in the user's own code, "" if there was none."""
    foreign = (__file__, "<frozen", sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(foreign)]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


@contextlib.contextmanager
def _path_first(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
