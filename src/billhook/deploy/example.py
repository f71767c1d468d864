"""Example inputs: a tensor, a tuple, or a dict of keyword arguments, seen as a call and as a list."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from billhook.errors import ExportError
from billhook.graph.inputs import ExampleInputs, as_call
from billhook.graph.outputs import output_name


@dataclass(frozen=True)
class Call:
    """Arguments of one call of a network."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, model: nn.Module, example_inputs: ExampleInputs) -> Call:
        """Return the call that `example_inputs` stand for; keywords in the order of the forward.

        Raises:
            InputError: if there is no tensor in them.
        """
        args, kwargs = as_call(example_inputs)
        order = {name: i for i, name in enumerate(inspect.signature(model.forward).parameters)}
        return cls(args, {k: kwargs[k] for k in sorted(kwargs, key=lambda k: order.get(k, len(order)))})

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments, in order."""
        leaves = pytree.tree_leaves((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    @property
    def batch(self) -> int | None:
        """First size, if all tensors have one and share it; else None."""
        sizes = {int(t.shape[0]) if t.ndim else None for t in self.tensors}
        return sizes.pop() if len(sizes) == 1 else None

    def with_batch(self, size: int) -> Call:
        """Return the call with `size` samples: the first ones, repeated if there are too few."""

        def resize(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            return leaf[torch.arange(size, device=leaf.device) % leaf.shape[0]]

        args, kwargs = pytree.tree_map(resize, (self.args, self.kwargs))
        return Call(args, kwargs)

    def map_tensors(self, constant: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the structure of the arguments with `constant` for each tensor and None for the rest."""
        args, kwargs = pytree.tree_map(
            lambda leaf: constant if isinstance(leaf, Tensor) else None, (self.args, self.kwargs)
        )
        return args, kwargs

    def run(self, model: nn.Module) -> Any:
        """Return what `model` makes of it.

        Raises:
            ExportError: if the network fails on these inputs.
        """
        try:
            with torch.no_grad():
                return model(*self.args, **self.kwargs)
        except Exception as e:  # whatever the user's forward raises
            shapes = ", ".join(str(list(t.shape)) for t in self.tensors)
            raise ExportError(
                f"the network itself fails on the example inputs (shapes {shapes}): {type(e).__name__}: {e}"
            ) from e


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold all modules in eval mode and put every one back afterwards."""
    training = [m for m in model.modules() if m.training]
    try:
        for m in training:
            m.training = False
        yield
    finally:
        for m in training:
            m.training = True


def named_outputs(outputs: Any) -> dict[str, Tensor]:
    """Return the tensors among `outputs` by name.

    Names are those of `billhook.graph.outputs`; equal ones get a "_".
    """
    paths, _ = pytree.tree_flatten_with_path(outputs)
    named: dict[str, Tensor] = {}
    for path, leaf in paths:
        if isinstance(leaf, Tensor):
            name = output_name(path)
            while name in named:
                name += "_"
            named[name] = leaf
    return named
