"""Example inputs: one tensor, a tuple of positional arguments or a dict of keyword arguments.

A `Plan` keeps a description of them (shapes, dtypes, small integers), so that it can be applied
later, in another process, without the data it was made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from billhook.errors import InputError, PlanError

ExampleInputs = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]
Call = tuple[tuple[Any, ...], dict[str, Any]]

_MAX_ELEMENTS = 2**30  # a description asks for at most this many elements per tensor
_LITERALS = (bool, int, float, str, type(None))


def as_call(example_inputs: ExampleInputs) -> Call:
    """Return `example_inputs` as (args, kwargs) for calling the model.

    Raises:
        InputError: if there is no tensor in them.
    """
    if isinstance(example_inputs, Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        args, kwargs = (), {str(k): v for k, v in example_inputs.items()}
    elif isinstance(example_inputs, (tuple, list)):
        args, kwargs = tuple(example_inputs), {}
    else:
        raise InputError(
            f"example inputs are a {type(example_inputs).__name__}; give a tensor, a tuple of arguments or a "
            "dict of keyword arguments"
        )
    if not tensors((args, kwargs)):
        raise InputError("example inputs hold no tensor; give one batch as the model's forward takes it")
    return args, kwargs


def tensors(value: Any) -> list[Tensor]:
    """Return all tensors inside nested tuples, lists and dicts, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in tensors(v)]
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in tensors(v)]
    return []


def describe(call: Call) -> dict[str, Any]:
    """Return a JSON-able description from which `synthesize` makes similar inputs."""
    return {"args": [_describe(a) for a in call[0]], "kwargs": {k: _describe(v) for k, v in call[1].items()}}


def synthesize(description: Mapping[str, Any], seed: int = 0) -> Call:
    """Return inputs of the described shapes: seeded normal floats, integers up to the largest seen.

    Raises:
        PlanError: if the description is malformed or asks for absurd sizes.
    """
    generator = torch.Generator().manual_seed(seed)
    try:
        args = tuple(_synthesize(a, generator) for a in description["args"])
        kwargs = {str(k): _synthesize(v, generator) for k, v in description["kwargs"].items()}
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as e:
        raise PlanError(f"the plan's description of the inputs is corrupted: {e}") from None
    return args, kwargs


def copied(call: Call) -> Call:
    """Return the call with copies of its tensors, for networks that change their inputs in place."""
    return tree_map_only(Tensor, Tensor.clone, call)  # type: ignore[no-any-return]


def repeat_batch(call: Call, times: int) -> Call:
    """Return the call with every tensor repeated along its first dimension."""

    def repeat(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.repeat(times, *[1] * (value.dim() - 1)) if value.dim() else value
        if isinstance(value, Mapping):
            return {k: repeat(v) for k, v in value.items()}
        if isinstance(value, (tuple, list)):
            return type(value)(repeat(v) for v in value)
        return value

    return repeat(call[0]), repeat(call[1])


def _describe(value: Any) -> Any:
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        largest = (
            0 if value.is_floating_point() or value.is_complex() or not value.numel() else int(value.max())
        )
        return {"shape": list(value.shape), "dtype": kind, "max": largest}
    if isinstance(value, Mapping):
        return {"dict": {str(k): _describe(v) for k, v in value.items()}}
    if isinstance(value, (tuple, list)):
        return {"tuple" if isinstance(value, tuple) else "list": [_describe(v) for v in value]}
    if isinstance(value, _LITERALS):
        return {"literal": value}
    raise InputError(
        f"example inputs hold a {type(value).__name__}; only tensors and plain values can be kept"
    )


def _synthesize(entry: Mapping[str, Any], generator: torch.Generator) -> Any:
    if "literal" in entry:
        return entry["literal"]
    if "dict" in entry:
        return {k: _synthesize(v, generator) for k, v in entry["dict"].items()}
    if "tuple" in entry:
        return tuple(_synthesize(v, generator) for v in entry["tuple"])
    if "list" in entry:
        return [_synthesize(v, generator) for v in entry["list"]]
    shape, dtype = [int(s) for s in entry["shape"]], getattr(torch, str(entry["dtype"]))
    if not isinstance(dtype, torch.dtype) or any(s < 0 for s in shape):
        raise ValueError(f"tensor of shape {shape} and dtype {entry['dtype']!r}")
    count = 1
    for s in shape:
        count *= s
    if count > _MAX_ELEMENTS:
        raise ValueError(f"a tensor of {count} elements")
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    if dtype.is_complex:
        return torch.randn(shape, generator=generator, dtype=torch.complex64).to(dtype)
    # Integers are indices or masks: count up to the largest seen, so that every index stays valid.
    values = (
        torch.arange(count).flip(0) % (int(entry["max"]) + 1) if entry["max"] >= 0 else torch.zeros(count)
    )
    return values.reshape(shape).to(dtype)
