"""Edits of an exported ONNX graph: no traces of the machine, names a user understands.

The library onnx_ir is passed in as `ir`; its objects carry no types.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from billhook.errors import ExportError
from billhook.measure.manifest import TensorSpec

BATCH = "batch"


def tidy(ir: Any, model: Any, outputs: list[str]) -> None:
    """Strip `model`, call its outputs `outputs` and its open size "batch"; in place.

    Raises:
        ExportError: if the number of outputs differs.
    """
    graph = model.graph
    if len(graph.outputs) != len(outputs):
        raise ExportError(f"the exporter gave {len(graph.outputs)} outputs, the network has {outputs}")
    _strip(ir, model)
    _own_outputs(ir, graph)
    _rename(ir, graph, outputs)
    _name_batch(ir, graph)


def specs(values: Any, examples: list[Tensor]) -> tuple[TensorSpec, ...]:
    """Return the records of graph inputs or outputs, with the dtypes and ranges of `examples`.

    Raises:
        ExportError: if the numbers differ, or a type has no equivalent in numpy.
    """
    if len(values) != len(examples):
        raise ExportError(f"the exported graph has {len(values)} inputs, the example {len(examples)} tensors")
    return tuple(_spec(v, t) for v, t in zip(values, examples, strict=True))


def _strip(ir: Any, model: Any) -> None:
    """Remove source paths and stack traces: nobody else's business, and they can double a small file."""
    for value in _values(ir, model.graph):
        value.metadata_props.clear()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        node.metadata_props.clear()
        node.doc_string = None
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


def _own_outputs(ir: Any, graph: Any) -> None:
    """Give every output a value of its own; a network may return an input, a weight or one tensor twice."""
    seen = {id(v) for v in graph.inputs}
    for i, value in enumerate(graph.outputs):
        if id(value) in seen or value.producer() is None:
            node = ir.node("Identity", [value])
            own = node.outputs[0]
            own.shape, own.dtype = value.shape, value.dtype
            graph.append(node)
            graph.outputs[i] = own
        seen.add(id(graph.outputs[i]))


def _rename(ir: Any, graph: Any, names: list[str]) -> None:
    """Call the outputs `names`; other values that have such a name get another one."""
    inputs = {v.name for v in graph.inputs}
    wanted: list[str] = []
    for name in names:
        while name in inputs or name in wanted:
            name += "_out"
        wanted.append(name)
    values = _values(ir, graph)
    used = {v.name for v in values} | set(wanted)
    for value in values:
        if value.name in wanted:
            new = f"{value.name}_inner"
            while new in used:
                new += "_"
            used.add(new)
            value.name = new
    for value, name in zip(graph.outputs, wanted, strict=True):
        value.name = name


def _name_batch(ir: Any, graph: Any) -> None:
    """Call the open size "batch" wherever it occurs in a shape; the tracer calls it s77 or the like."""
    firsts = [v.shape[0] for v in graph.inputs if v.shape]
    symbols = sorted({str(n.value) for n in firsts if not isinstance(n, int)})
    if not symbols:
        return
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, symbols))})\b")
    for value in _values(ir, graph):
        if value.shape is not None:
            sizes = [n if isinstance(n, int) else pattern.sub(BATCH, str(n.value)) for n in value.shape]
            value.shape = ir.Shape(sizes)


def _values(ir: Any, graph: Any) -> list[Any]:
    made = [v for node in ir.traversal.RecursiveGraphIterator(graph) for v in node.outputs]
    return list({id(v): v for v in (*graph.inputs, *graph.initializers.values(), *made)}.values())


def _spec(value: Any, example: Tensor) -> TensorSpec:
    shape = tuple(n if isinstance(n, int) else None for n in value.shape)
    try:
        dtype = str(example.detach().cpu().numpy().dtype)
    except TypeError:
        raise ExportError(
            f"{value.name!r} is {example.dtype}; which no runtime can be fed; cast it"
        ) from None
    low = high = None
    if not example.dtype.is_floating_point and example.dtype != torch.bool and example.numel():
        low, high = int(example.min()), int(example.max())
    return TensorSpec(value.name, shape, dtype, low, high)
