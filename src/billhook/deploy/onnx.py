"""ONNX export; the only file that imports onnx, onnxscript and onnx_ir.

torch's dynamo exporter with the onnxscript optimiser, which is not optional: without it batch norms stay
separate operators that ONNX Runtime does not fold, and ResNet-20 takes 0.88 ms instead of 0.46 ms, ResNet-50
54 ms instead of 42 ms (one core, batch 1). A fixed or an open batch size runs equally fast, but a fixed
one exports in half the time for deep networks (ViT-B: 4 s instead of 8 s).
"""

from __future__ import annotations

import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from billhook.deploy.example import Call, evaluating, named_outputs
from billhook.deploy.export_error import export_error
from billhook.deploy.onnx_graph import BATCH, specs, tidy
from billhook.errors import ExportError, InputError, MissingExtraError
from billhook.measure.manifest import TensorSpec

log = logging.getLogger("billhook")

OPSET = 18
"""What the exporter writes natively; newer ones are made by conversion, and older runtimes read this one."""

EMBED_LIMIT = 2_000_000_000
"""Bytes of weights inside the file; protobuf stops at 2 GiB, the graph included."""


@dataclass(frozen=True)
class OnnxExport:
    """What `export_onnx` wrote.

    Attributes:
        path: The model file; weights are beside it, as `path` + ".data", if they exceed 2 GB.
        inputs, outputs: Tensors in the file's order.
        batch: Batch size of the example inputs; None if they have no common first dimension.
        dynamic_batch: True if the batch size is open.
        opset: Operator-set version.
        notes: Why the batch size is fixed, if it was meant to be open.
    """

    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch: int | None
    dynamic_batch: bool
    opset: int
    notes: tuple[str, ...] = ()


def export_onnx(
    model: nn.Module,
    example_inputs: Any,
    path: str | Path,
    *,
    opset: int = OPSET,
    dynamic_batch: bool = True,
    external_weights: bool | None = None,
) -> OnnxExport:
    """Write `model` as an ONNX file, in eval mode, optimised; nothing is run or compared.

    If the network's code fixes the batch size, the file gets the batch size of the example inputs, and a
    warning and the result say so. Takes 1-2 s for a ResNet-20, 3-4 s for a ResNet-50.

    Args:
        model: The network; left as it is.
        example_inputs: A tensor, a tuple, or a dict of keyword arguments. What is not a tensor becomes
            part of the file.
        path: The file to write.
        opset: Operator-set version.
        dynamic_batch: Leave the batch size open.
        external_weights: Weights in a second file; None decides by the limit of 2 GB.
    Raises:
        ExportError: if the network cannot be exported; names the operator and the line.
        MissingExtraError: if onnx or onnxscript is not installed.
    """
    ir = _onnx_ir(opset)
    path = Path(path)
    call = Call.of(model, example_inputs)
    with evaluating(model):
        result = call.run(model)
        outputs = named_outputs(result)
        if not outputs:
            raise ExportError("the network returns no tensor; there is nothing to export")
        if not all(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(result)):
            model = _TensorsOnly(model)
        graph_model, note = _lower(model, call, opset, dynamic_batch)
    if graph_model.opset_imports.get("") != opset:
        raise ExportError(f"cannot convert to opset {opset}; the exporter's own is {OPSET}")
    tidy(ir, graph_model, list(outputs))
    weights = sum(v.const_value.nbytes for v in graph_model.graph.initializers.values())
    if external_weights is None:
        external_weights = weights > EMBED_LIMIT
    ir.save(graph_model, path, external_data=f"{path.name}.data" if external_weights else None)
    inputs = specs(graph_model.graph.inputs, call.tensors)
    results = specs(graph_model.graph.outputs, list(outputs.values()))
    open_batch = dynamic_batch and not note
    return OnnxExport(path, inputs, results, call.batch, open_batch, opset, (note,) if note else ())


class _TensorsOnly(nn.Module):
    """Drops None, numbers and other constants from the outputs; the exporter accepts only tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = False

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        leaves = pytree.tree_leaves(self.model(*args, **kwargs))
        return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))


def _lower(model: nn.Module, call: Call, opset: int, dynamic_batch: bool) -> tuple[Any, str]:
    """Return the onnx_ir model, and why its batch size is fixed if it was meant to be open."""
    if not dynamic_batch:
        return _convert(model, call, opset, False), ""
    if call.batch is None:
        note = "the batch size is fixed: the example inputs have no common first dimension"
    else:
        note = f"the batch size is fixed at {call.batch}: the network's code depends on it"
        try:
            return _convert(model, call, opset, True), ""
        except ExportError as e:
            log.debug("export with an open batch size failed: %s", e)
    graph_model = _convert(model, call, opset, False)
    log.warning("%s", note)
    return graph_model, note


def _convert(model: nn.Module, call: Call, opset: int, open_batch: bool) -> Any:
    """Return the optimised onnx_ir model."""
    shapes = None
    if open_batch:
        # Sizes 0 and 1 are always taken as constants by torch.export.
        call = call.with_batch(max(2, call.batch or 2))
        args, kwargs = call.map_tensors({0: torch.export.Dim(BATCH)})
        # By name, because a forward may take all it gets as *args.
        shapes = dict(inspect.signature(model.forward).bind(*args, **kwargs).arguments)
    program = None
    with _quiet():
        try:
            # Exporting here, not inside torch.onnx, spares its further attempts at a network that fails.
            program = torch.export.export(model, call.args, call.kwargs, dynamic_shapes=shapes, strict=False)
            made = torch.onnx.export(
                program, call.args, kwargs=call.kwargs, dynamo=True, opset_version=opset, verbose=False
            )
        except Exception as e:  # torch raises its own, Python's and the user's exceptions here
            raise export_error(e, program) from e
    assert made is not None
    return made.model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress, warnings and graph dumps from the user; failures are raised anyway."""
    level = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(level)


def _onnx_ir(opset: int) -> Any:
    """Return the module onnx_ir, after checking that all that is needed is there."""
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", "onnx", "ONNX export") from None
    try:
        import onnx_ir
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ImportError:
        raise MissingExtraError("onnxscript", "onnx", "ONNX export") from None
    newest = onnx.defs.onnx_opset_version()
    if not OPSET <= opset <= newest:
        raise InputError(f"opset={opset}: this exporter writes {OPSET} to {newest}")
    return onnx_ir
