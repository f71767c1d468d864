"""What the time of a whole network grows with, from its shapes alone: for runtimes that time no layers."""

from __future__ import annotations

import numpy as np

from billhook.errors import InputError
from billhook.graph.weight_shapes import WeightShapes
from billhook.measure.backend import Rounding, backends
from billhook.search.space import Floats, Genes, Space
from billhook.sparse.mapping.latency_table import kind_of

_PREFERENCE = 1.0  # for terms of the whole network over those of one kind of layers
_WIDE = 4  # blocks of channels that fast kernels compute at once


class WorkTerms:
    """Multiplications, numbers written and numbers read, of the network and of each kind of its layers.

    Each of them once with the channels as they are, and once rounded up to what the runtime computes at a
    time (see `Rounding`): to most of them 20 channels are as much work as 32. None falls where a width or a
    density rises. Operators are not timed on their own: their sum says nothing about the network, because
    runtimes fuse them and change layouts between them (off by 19 to 279 % in our trials).

    Args:
        space: The candidates.
        backend: Runtime.
    Raises:
        InputError: if there are genes for densities, and zeros make no difference to the runtime.
    """

    def __init__(self, space: Space, backend: str) -> None:
        require_difference(space, backend)
        self._space, layers = space, space.whole.weights
        self._shapes, self._rounding = WeightShapes(space.graph), backends.get(backend).rounding
        self._pixels = np.array([layer.positions for layer in layers], dtype=np.float64)
        self._kernels = np.array([layer.view[2] for layer in layers], dtype=np.float64)
        self._column = {layer.tensor: at for at, layer in enumerate(layers)}
        kinds = [kind_of(layer) for layer in layers]
        names = list(dict.fromkeys(kinds))
        self._kinds = np.array([[float(kind == name) for name in names] for kind in kinds])
        self._whole = np.ones(1)
        self._whole = self._terms(space.highest[None])[0]
        of_all = len(self._whole) // (1 + len(names))
        self.penalty: Floats = np.repeat([0.0, _PREFERENCE], [of_all, of_all * len(names)])

    def of(self, rows: Genes) -> Floats:
        """Return every term relative to that of the original: [rows, terms]."""
        return self._terms(rows) / self._whole

    def _terms(self, rows: Genes) -> Floats:
        shapes = self._shapes.of(self._space.counts(rows))
        left = np.ones(shapes.outputs.shape)
        for tensor, density in self._space.densities(rows).items():
            left[:, self._column[tensor]] = density
        block = self._rounding.preferred
        outputs = [_up(shapes.outputs, multiple) for multiple in (1, block, _WIDE * block)]
        inputs = [_inputs(shapes.inputs, multiple, self._rounding) for multiple in (1, block)]
        by_layer = [
            *(left * o * i * self._kernels * self._pixels for o in outputs for i in inputs),
            *(o * self._pixels for o in outputs[:2]),
            *(i * shapes.groups * self._kernels * self._pixels for i in inputs),
        ]
        whole = np.stack([term.sum(1) for term in by_layer], axis=1)
        return np.hstack([whole, *(term @ self._kinds for term in by_layer)])


def require_difference(space: Space, backend: str) -> None:
    """Raise `InputError` if there are genes for densities, and zeros make no difference to the runtime."""
    if space.layers and not backends.get(backend).leaves_zeros_out:
        able = [name for name in backends.names() if backends.get(name).leaves_zeros_out]
        raise InputError(
            f"densities make no difference to the latency in {backend!r}, which computes with zeros as with "
            "any other number: search without a pattern, or for another metric, or for a backend that leaves "
            f"zeros out ({', '.join(able)})"
        )


def _up(sizes: Floats, multiple: int) -> Floats:
    up: Floats = np.ceil(sizes / multiple) * multiple
    return up


def _inputs(sizes: Floats, multiple: int, rounding: Rounding) -> Floats:
    """Return inputs rounded up, but for images and single channels, for which runtimes have kernels."""
    return np.where(sizes < rounding.minimum, sizes, _up(sizes, multiple))
