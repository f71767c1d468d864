"""What says how long layers take: timings in the runtime that is to be shipped, or a table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from torch import nn

from billhook.errors import InputError, UnsupportedError
from billhook.graph.weights import WeightLayer
from billhook.measure.backend import LayerTimes, backends
from billhook.sparse.mapping import LatencyModel, LatencyTable

log = logging.getLogger("billhook")

AUTO, MEASURED, TABLE = WORDS = ("auto", "measured", "table")


def layer_times(
    wanted: str,
    model: nn.Module,
    example_inputs: Any,
    layers: Sequence[WeightLayer],
    *,
    backend: str = "onnxruntime",
    threads: int = 1,
) -> tuple[LatencyModel, float]:
    """Return what says how long layers take, and the seconds of all that is not in `layers`.

    A table knows of nothing else: 0.

    Args:
        wanted: "measured": layers are timed in the backend; "table": the table that comes with the package;
            "auto": measured if the backend can tell what zeros save, the table if not; else the path of a
            table.
        model: The network.
        example_inputs: One batch.
        layers: That are to be mapped.
        backend: Runtime the network is meant for.
        threads: Of that runtime.
    Raises:
        NameNotFoundError: if there is no such backend.
        EngineError: if layers are to be timed in the engine and it is not built.
        InputError: if layers are to be timed in a backend that zeros make no difference to.
        UnsupportedError: if they are to be, and it cannot run the network.
        StorageError: if the file of a table cannot be read.
    """
    if wanted in (AUTO, MEASURED):
        timed = _timed(wanted, model, example_inputs, backend, threads)
        if timed is not None:
            return timed, timed.others(layers)
    return LatencyTable.default() if wanted in (AUTO, TABLE) else LatencyTable.load(wanted), 0.0


def _timed(
    wanted: str, model: nn.Module, example_inputs: Any, backend: str, threads: int
) -> LayerTimes | None:
    try:
        timed = backends.get(backend).layer_times(model, example_inputs, threads)
    except UnsupportedError as e:
        if wanted == MEASURED:
            raise
        log.warning("layers are not timed, a table tells what they take: %s", e)
        return None
    if timed is None and wanted == MEASURED:
        able = [name for name in backends.names() if backends.get(name).leaves_zeros_out]
        raise InputError(
            f"times={wanted!r}: to the backend {backend!r} zeros make no difference; choose another "
            f"({', '.join(able)}), or take times={TABLE!r}"
        )
    return timed
