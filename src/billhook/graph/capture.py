"""Capture: the user's module as a flat graph of ATen operators, by `torch.export` (non-strict).

The module is neither rewritten nor left in another mode. The graph keeps no parameter alive: it knows
them by name.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from billhook.errors import CaptureError, InputError
from billhook.graph.inline import inline_blocks
from billhook.graph.inputs import Call, repeat_batch, tensors


@dataclass(frozen=True, eq=False)
class Program:
    """A captured forward pass.

    Attributes:
        graph: Flat graph of ATen operators; every node has `meta["val"]` with shapes.
        tensors: Placeholder name → canonical name of the parameter or buffer it stands for.
        shapes: Canonical name → shape of the tensor.
        parameters: Canonical names that are parameters (the others are buffers).
        itemsizes: Canonical name → bytes per element.
        aliases: Other names of shared tensors → canonical name.
        constants: Placeholder name → tensor that is neither parameter nor buffer.
        inputs: Placeholder names of the user's inputs, in order.
        call_spec: Tree specs of inputs and outputs, to call the graph like the module.
        unused: Layers with parameters that this forward pass never reads (auxiliary heads, …).
        dynamic_batch: True if the first dimension of the inputs may vary.
    """

    graph: fx.Graph
    tensors: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    parameters: frozenset[str]
    itemsizes: Mapping[str, int]
    aliases: Mapping[str, str]
    constants: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    in_spec: Any
    out_spec: Any
    unused: tuple[str, ...] = ()
    dynamic_batch: bool = False


def capture_program(model: nn.Module, call: Call, *, dynamic_batch: bool = False) -> Program:
    """Return the forward pass of `model` in eval mode on `call`.

    Raises:
        CaptureError: if the network cannot run on the inputs or cannot be captured; names the operator
            or exception, the line of the user's code and what to do.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"expected an nn.Module, got a {type(model).__name__}")
    shapes: Any = None
    if dynamic_batch:
        call = repeat_batch(call, 2)
        shapes = _dynamic_shapes(model, call)
    with eval_mode(model), _plain_attention(), without_caches(model), _quiet(), torch.no_grad():
        try:
            exported = torch.export.export(
                model,
                call[0],
                call[1],
                dynamic_shapes=shapes,
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
        except Exception as e:
            raise _explain(model, call, e) from e
    inline_blocks(exported.graph_module, source_line)
    exported.graph.eliminate_dead_code()  # what nobody reads (weights of attention, …) must not hold channels
    canonical = _canonical_names(model)
    signature = exported.graph_signature
    named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    state = dict(model.named_parameters(remove_duplicate=False)) | dict(
        model.named_buffers(remove_duplicate=False)
    )
    known = {p: canonical[n] for p, n in named.items() if n in canonical}
    constants = {
        p: exported.constants[n]
        for p, n in {**signature.inputs_to_lifted_tensor_constants, **named}.items()
        if p not in known and n in exported.constants
    }
    return Program(
        graph=exported.graph,
        tensors=known,
        shapes={n: tuple(state[n].shape) for n in set(canonical.values())},
        parameters=frozenset(canonical[n] for n, _ in model.named_parameters(remove_duplicate=False)),
        itemsizes={n: state[n].element_size() for n in set(canonical.values())},
        aliases={n: c for n, c in canonical.items() if n != c},
        constants=constants,
        inputs=tuple(signature.user_inputs),
        in_spec=exported.call_spec.in_spec,
        out_spec=exported.call_spec.out_spec,
        unused=_unused_layers(exported.graph, known, canonical, model),
        dynamic_batch=dynamic_batch,
    )


def _unused_layers(
    graph: fx.Graph, known: Mapping[str, str], canonical: Mapping[str, str], model: nn.Module
) -> tuple[str, ...]:
    used = {known[n.name] for n in graph.nodes if n.op == "placeholder" and n.name in known and n.users}
    own = [canonical[n] for n, _ in model.named_parameters()]
    return tuple(dict.fromkeys(n.rpartition(".")[0] or n for n in own if n not in used))


def source_line(node: fx.Node) -> str:
    """Return "file.py:12: code" for the line of the user's code that made `node`, "" if unknown."""
    trace = node.meta.get("stack_trace") or ""
    frames = [f for f in trace.split('File "') if ", line " in f and not f.startswith("<")]
    own = [
        f for f in frames if "/torch/nn/" not in f and "/torch/_" not in f and "/torch/functional" not in f
    ]
    if not (own or frames):
        return ""
    head, _, code = (own or frames)[-1].partition("\n")
    path, _, rest = head.partition('", line ')
    return f"{path}:{rest.split(',')[0]}: {code.strip().splitlines()[0] if code.strip() else ''}".rstrip(": ")


def layer_of(node: fx.Node) -> str:
    """Return the dotted name of the innermost module that made `node`, "" for the root."""
    stack = node.meta.get("nn_module_stack") or {}
    path = list(stack.values())[-1][0] if stack else ""
    return str(path).split("@")[0]


def caches(module: nn.Module) -> list[str]:
    """Return the attributes where a module keeps tensors of earlier passes: dicts called "…cache…".

    LeViT, EfficientFormer and TinyViT keep the biases of attention there while they are in eval mode.
    """
    found = [(n, v) for n, v in vars(module).items() if "cache" in n and not n.startswith("__")]
    return [n for n, v in found if isinstance(v, dict) and all(isinstance(t, Tensor) for t in v.values())]


def _canonical_names(model: nn.Module) -> dict[str, str]:
    """Return every name of every tensor → the first name of that tensor (shared weights have several)."""
    first: dict[int, str] = {}
    names: dict[str, str] = {}
    for source in (
        model.named_parameters(remove_duplicate=False),
        model.named_buffers(remove_duplicate=False),
    ):
        for name, tensor in source:
            names[name] = first.setdefault(id(tensor), name)
    return names


def _dynamic_shapes(model: nn.Module, call: Call) -> dict[str, Any]:
    """Return a specification in which the first dimension of all tensors of one batch size varies."""
    sizes = [t.shape[0] for t in tensors(call) if t.dim()]
    batch = sizes[0] if sizes else 0

    def spec(value: Any) -> Any:
        if isinstance(value, Tensor):
            return {0: torch.export.Dim.AUTO} if value.dim() and value.shape[0] == batch else None
        if isinstance(value, Mapping):
            return {k: spec(v) for k, v in value.items()}
        if isinstance(value, (tuple, list)):
            return type(value)(spec(v) for v in value)
        return None

    # Structured like the arguments in the body of forward: what `*args` takes is a tuple there.
    bound = inspect.signature(model.forward).bind(*call[0], **call[1])
    return {name: spec(value) for name, value in bound.arguments.items()}


@contextlib.contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Put a network in eval mode and every one of its modules back afterwards."""
    training = [m for m in network.modules() if m.training]
    for m in training:
        m.training = False
    try:
        yield
    finally:
        for m in training:
            m.training = True


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Switch off the fused inference path of `nn.MultiheadAttention`: it is one opaque operator."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextlib.contextmanager
def without_caches(model: nn.Module) -> Iterator[None]:
    """Hide what earlier passes kept: it belongs to other weights, or would be captured as a constant."""
    hidden = [(m, name, m.__dict__[name]) for m in model.modules() for name in caches(m)]
    for module, name, _ in hidden:
        setattr(module, name, {})
    try:
        yield
    finally:
        for module, name, kept in hidden:
            setattr(module, name, kept)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings and log lines of the exporter; what matters comes back as an error."""
    loggers = [
        logging.getLogger(n)
        for n in ("torch.export", "torch._export", "torch.fx", "torch._dynamo", "torch._subclasses")
    ]
    levels = [x.level for x in loggers]
    for x in loggers:
        x.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for x, level in zip(loggers, levels, strict=True):
            x.setLevel(level)


def _explain(model: nn.Module, call: Call, error: Exception) -> CaptureError:
    """Return a `CaptureError` which tells wrong inputs from a network that cannot be captured."""
    name = type(model).__name__
    shapes = ", ".join(f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in tensors(call))
    line = _user_line(error)
    try:
        with torch.no_grad():
            model(*call[0], **call[1])
    except Exception as e:
        where = _user_line(e)
        return CaptureError(
            f"{name} does not run on the example inputs ({shapes}): {_first_line(e)}"
            + (f"\n  at {where}" if where else "")
            + "\n  give example inputs with the shapes and dtypes that forward expects"
        )
    return CaptureError(
        f"{name} runs but cannot be captured by torch.export: {_first_line(error)}"
        + (f"\n  at {line}" if line else "")
        + "\n  data-dependent control flow, .item(), .tolist() and calls into other libraries cannot be"
        " captured; move them out of forward, or compress the part of the network without them"
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"[:400]


def _user_line(error: BaseException) -> str:
    """Return "file:line: code" of the innermost frame outside torch."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/torch/" not in f.filename and "/billhook/" not in f.filename]
    return f"{own[-1].filename}:{own[-1].lineno}: {own[-1].line}" if own else ""
