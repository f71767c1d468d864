"""Least squares: the layers that read a pruned group make up for what has left, without training.

What layers of the original read is looked at once; a candidate then costs one small linear system for each
layer whose inputs are pruned, and layers that have been solved for the same inputs are remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from billhook.criteria import Calibration
from billhook.graph import ChannelGroup
from billhook.graph.plan import Keep
from billhook.graph.structure import Structure, impose_
from billhook.search.problem import SearchProblem
from billhook.train.reader_layers import ReaderLayer, gone_columns, supported_readers
from billhook.train.reconstruction import DAMPING, Moments, moments, refitted, refitted_on_support

MOST_COLUMNS = 2400  # a layer that reads more would take more time than its candidates' evaluation
_REMEMBERED = 2**26  # weights


class Reconstruction:
    """Weights of the layers that read pruned groups, refitted to the outputs of the original network.

    Args:
        model: The original.
        groups: Groups that may be pruned.
        calibration: Batches (inputs, targets) to look at.
        batches: Use at most this many.
        positions: Use at most this many output positions of an image; the source draws 10.
        seed: Of the draws.
        damping: Pull towards the original weights, relative to the mean of the second moments.

    References:
        He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices", ECCV 2018, section
        3.3, and the authors' code: inputs of the original network, least squares for each layer.
    Differs from the source:
        All convolutions and linear layers are refitted, also those with windows; sums over all drawn
        positions are kept instead of these; biases are refitted too; a small ridge pulls to the old weights.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[ChannelGroup],
        calibration: Calibration,
        *,
        batches: int = 8,
        positions: int = 16,
        seed: int = 0,
        damping: float = DAMPING,
    ) -> None:
        found = supported_readers(model, groups)
        small = [la for la in found if la.matrix().shape[2] <= MOST_COLUMNS]
        self.left_out = tuple(la.tensor for la in found if la not in small)
        seen = moments(model, small, calibration, batches=batches, positions=positions, seed=seed)
        self._parts = [(_Layer(la), _means(seen[la.tensor])) for la in small]
        self._damping = damping
        self._solved: OrderedDict[tuple[str, bytes], dict[str, Tensor]] = OrderedDict()
        self._size = 0

    def tensors(self, keep: Mapping[str, Keep]) -> dict[str, Tensor]:
        """Return new weights and biases, in full size, of all layers that read units which leave."""
        result: dict[str, Tensor] = {}
        for layer, (second, cross) in self._parts:
            gone = layer.gone(keep)
            if gone is None:
                continue
            key = layer.name, gone.numpy().tobytes()
            if key not in self._solved:
                solved = refitted(layer.matrix, cross, second, gone, self._damping)
                self._remember(key, layer.tensors(solved))
            self._solved.move_to_end(key)
            result |= self._solved[key]
        return result

    @torch.no_grad()
    def thin_out_(
        self, weights: Mapping[str, Tensor], keep: Mapping[str, Keep], structures: Mapping[str, Structure]
    ) -> None:
        """Give tensors their structures, in place, and let what is left of each make up for its zeros.

        Tensors that no pruned group's readers have, and those of grouped and transposed convolutions, get
        their structures only.

        Args:
            weights: Parameters of the sliced network, still dense.
            keep: Units that stay.
            structures: Of the sliced tensors.
        """
        dense = {name: weights[name].clone() for name in structures}
        impose_(weights, structures)
        for layer, (second, _) in self._parts:
            structure = structures.get(layer.name)
            if structure is None or not layer.plain:
                continue
            gone = layer.gone(keep)
            if gone is not None:
                second = second[:, ~gone][:, :, ~gone]
            matrix = layer.joined(dense[layer.name], weights)
            support = layer.supported(structure.mask)
            solved = refitted_on_support(matrix, matrix @ second, second, support, self._damping)
            for name, tensor in layer.tensors(solved, structure.shape).items():
                weights[name].copy_(tensor)

    def _remember(self, key: tuple[str, bytes], tensors: dict[str, Tensor]) -> None:
        self._solved[key] = tensors
        self._size += sum(t.numel() for t in tensors.values())
        while self._size > _REMEMBERED and len(self._solved) > 1:
            _, old = self._solved.popitem(last=False)
            self._size -= sum(t.numel() for t in old.values())


def reconstruction_of(problem: SearchProblem) -> Reconstruction:
    """Return the least squares of a search, by its calibration images."""
    batches = problem.calibration()
    return Reconstruction(
        problem.model,
        problem.scope.select(problem.graph.groups),
        Calibration(batches, problem.loss),
        batches=len(batches),
        seed=problem.seed,
    )


class _Layer:
    """A layer as its matrix; knows no module, so that it can go to another process."""

    def __init__(self, reader: ReaderLayer) -> None:
        self.name, self.matrix = reader.tensor, reader.matrix().clone()
        self._units = {name: columns.clone() for name, columns in reader.units.items()}
        self._form = reader.form

    @property
    def plain(self) -> bool:
        """True if one matrix multiplies all inputs."""
        return len(self.matrix) == 1 and not self._form.transposed

    def joined(self, weight: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        """Return a sliced weight, with its bias as last column if there is one: [1, outputs, columns]."""
        rows = weight.reshape(1, len(weight), -1)
        return torch.cat([rows, others[self._bias].view(1, -1, 1)], 2) if self._form.bias else rows

    def supported(self, mask: Tensor) -> Tensor:
        """Return a mask of a sliced weight like `joined`: a bias may be anything."""
        return functional.pad(mask.reshape(1, len(mask), -1), (0, int(self._form.bias)), value=True)

    def gone(self, keep: Mapping[str, Keep]) -> Tensor | None:
        """Return which columns are those of units that leave: mask [columns]; None if none are."""
        gone = gone_columns(self._units, keep, self.matrix.shape[2])
        return gone if gone.any() else None

    def tensors(self, matrix: Tensor, shape: tuple[int, ...] | None = None) -> dict[str, Tensor]:
        """Return the weight, of this shape if it is a sliced one, and the bias if there is one, by name."""
        form = self._form if shape is None else replace(self._form, shape=shape)
        weight, bias = form.split(matrix)
        own = {self.name: weight.contiguous()}
        return own if bias is None else own | {self._bias: bias}

    @property
    def _bias(self) -> str:
        owner = self.name.rpartition(".")[0]
        return f"{owner}.bias" if owner else "bias"


def _means(sums: Moments) -> tuple[Tensor, Tensor]:
    rows = max(1.0, sums.rows)
    return sums.second / rows, sums.cross / rows
