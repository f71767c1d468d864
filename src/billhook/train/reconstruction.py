"""Second moments of what layers read, streamed over calibration batches.

With X the rows of inputs of a layer and W its matrix, everything that least squares needs lies in XᵀX, from
which also follows how the outputs split up into the contributions of units, without writing those out.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from billhook.criteria import Calibration
from billhook.errors import InputError
from billhook.graph.alive import holding
from billhook.graph.inputs import as_call
from billhook.train.batches import unpack
from billhook.train.placement import device_of, mode_kept, to_device
from billhook.train.reader_layers import ReaderLayer

DAMPING = (
    1e-3  # of the least squares that repair a decision; one for all, so that what is exported was judged
)
_AT_ONCE = 2**24  # numbers in a temporary matrix
See = Callable[[ReaderLayer, Tensor, float], None]


@dataclass(eq=False)
class Moments:
    """Sums over all output positions of a layer.

    Attributes:
        second: Σ x xᵀ of its rows: [blocks, columns, columns].
        cross: Σ y xᵀ, where y is what the teacher's layer answers to its own rows; the layer's own answer if
            there is no teacher: [blocks, outputs, columns].
        rows: How many positions that were.
    """

    second: Tensor
    cross: Tensor
    rows: float = 0.0


def moments(
    model: nn.Module,
    layers: Sequence[ReaderLayer],
    calibration: Calibration,
    *,
    batches: int,
    positions: int,
    seed: int = 0,
    teacher: nn.Module | None = None,
) -> dict[str, Moments]:
    """Return the moments of `layers` by name of their weight, in the order in which the model runs them.

    One forward pass per batch, in eval mode, and one of the teacher. Weights, buffers, modes and the random
    state are left as they were. With more output positions than `positions` in an image, so many are drawn,
    the same for the teacher, and weighted to stand for all.

    Args:
        model: On any device; batches are moved there.
        layers: Layers of `model`.
        calibration: Batches (inputs, targets).
        batches: Use at most this many.
        positions: Use at most this many output positions of an image.
        seed: Of the draws, and of the random state while batches are loaded.
        teacher: Network built like `model` whose outputs are to be reconstructed.
    Raises:
        InputError: if there are no batches, or a layer is not called as a module.
    """
    found: dict[str, Moments] = {}
    answers: dict[str, list[Tensor]] = {}

    def answer(layer: ReaderLayer, rows: Tensor, _: float) -> None:
        answers.setdefault(layer.tensor, []).append(rows @ layer.matrix().to(rows).mT)

    def add(layer: ReaderLayer, rows: Tensor, stands_for: float) -> None:
        if layer.tensor not in found:
            shape = layer.matrix().shape
            found[layer.tensor] = Moments(rows.new_zeros(shape[0], shape[2], shape[2]), rows.new_zeros(shape))
        sums = found[layer.tensor]
        sums.second.baddbmm_(rows.mT, rows, alpha=stands_for)
        if teacher is not None:
            sums.cross.baddbmm_(answers[layer.tensor].pop(0).mT, rows, alpha=stands_for)
        sums.rows += rows.shape[1] * stands_for

    originals = [] if teacher is None else [layer.on(teacher) for layer in layers]
    device, read = device_of(model), 0
    with _untouched(model, teacher, seed=seed):
        for number, batch in enumerate(islice(calibration.batches, batches)):
            inputs, read = to_device(unpack(batch)[0], device), read + 1
            if teacher is not None:
                _run(teacher, originals, inputs, positions, (seed, number), answer)
            _run(model, layers, inputs, positions, (seed, number), add)
    if not read:
        raise InputError("the calibration data holds no batch; give data=[(inputs, targets), …]")
    _check_called(layers, found)
    for name, sums in found.items():
        if not torch.isfinite(sums.second).all():
            raise InputError(
                f"what layer weight {name!r} reads holds NaN or infinite values; look at the weights and at "
                "the data"
            )
    if teacher is None:
        for layer in layers:
            sums = found[layer.tensor]
            sums.cross = layer.matrix().to(sums.second) @ sums.second
    return found


def contributions(layer: ReaderLayer, group: str, second: Tensor) -> Tensor:
    """Return XᵀX of the contributions X[r, u] of the group's units to the outputs: [size, size], float64.

    A row r is one output value, Σ_u X[r, u] the part of it that comes from the group; the bias is no part of
    that. Since X[r, u] = Σ_{c in u} W[o, c] x[c], the sum over all rows is that of (WᵀW) ∘ (Σ x xᵀ) over the
    columns of each pair of units: exact, for all outputs and positions, in the size of the kernel squared.

    Args:
        layer: A layer that reads the group.
        group: Its id.
        second: As in `Moments`.
    """
    columns = layer.units[group].to(second.device)
    size, width = columns.shape
    chosen, total = columns.flatten(), torch.zeros(size, size, dtype=torch.float64, device=second.device)
    some = max(1, _AT_ONCE // (width * len(chosen)))  # units at once
    for matrix, sums in zip(layer.matrix().to(second), second, strict=True):
        for first in range(0, size, some):
            rows = columns[first : first + some].flatten()
            products = (matrix[:, rows].T @ matrix[:, chosen]) * sums[rows][:, chosen]
            pairs = products.view(-1, width, size, width).sum((1, 3), dtype=torch.float64)
            total[first : first + some] += pairs
    return total.cpu()


def damped(sums: Tensor, damping: float) -> Tensor:
    """Return H + λI with λ the fraction `damping` of the mean of the diagonal: [blocks, columns, columns]."""
    diagonal = sums.diagonal(dim1=1, dim2=2)
    added = damping * diagonal.mean(1).clamp_min(1e-12)
    return sums + torch.diag_embed(added[:, None].expand_as(diagonal))


def refitted(matrix: Tensor, cross: Tensor, second: Tensor, gone: Tensor, damping: float) -> Tensor:
    """Return the W' without columns `gone` that minimises E‖y − W'x‖² + λ‖W' − W‖².

    If y = Wx, this is where optimal brain surgery from W ends. If x comes from a network that has been
    changed and y from the original, it makes up for that, too.

    Args:
        matrix: W, [blocks, outputs, columns].
        cross: E[y xᵀ], of the same shape.
        second: E[x xᵀ], [blocks, columns, columns].
        gone: Columns that must be zero: mask [columns].
        damping: As in `damped`.
    """
    hessian = damped(second, damping)
    pull = hessian.diagonal(dim1=1, dim2=2) - second.diagonal(dim1=1, dim2=2)  # λ
    wanted = cross + matrix * pull[:, None]
    stays = ~gone
    result = torch.zeros_like(matrix)
    result[:, :, stays] = torch.linalg.solve(hessian[:, stays][:, :, stays], wanted[:, :, stays].mT).mT
    return result


def refitted_on_support(
    matrix: Tensor, cross: Tensor, second: Tensor, support: Tensor, damping: float, *, steps: int = 12
) -> Tensor:
    """Return the W' that is zero outside `support` and minimises E‖y − W'x‖² + λ‖W' − W‖², nearly.

    Every output has its own support, so there is no common linear system; conjugate gradients, preconditioned
    with the diagonal, solve all outputs side by side at one product with E[x xᵀ] per step.

    Args:
        matrix: W, [blocks, outputs, columns]; what lies outside the support does not count.
        cross: E[y xᵀ], of the same shape.
        second: E[x xᵀ], [blocks, columns, columns].
        support: True where W' may differ from zero, of the shape of `matrix`.
        damping: As in `damped`.
        steps: Of the conjugate gradients.
    """
    inside = support.to(matrix)
    hessian = damped(second, damping)
    scale = hessian.diagonal(dim1=1, dim2=2)[:, None]
    pull = scale - second.diagonal(dim1=1, dim2=2)[:, None]  # λ
    result = matrix * inside
    residual = (cross + result * pull - result @ hessian) * inside
    direction = residual / scale
    product = (residual * direction).sum(2, keepdim=True)
    for _ in range(steps):
        image = (direction @ hessian) * inside
        length = product / (direction * image).sum(2, keepdim=True).clamp_min(1e-30)
        result = result + length * direction
        residual = residual - length * image
        before, product = product, (residual * residual / scale).sum(2, keepdim=True)
        direction = residual / scale + product / before.clamp_min(1e-30) * direction
    return result


def taken(calibration: Calibration, batches: int, seed: int) -> Calibration:
    """Return the calibration with its first batches in memory, for those who read them again and again.

    The random state is seeded meanwhile, so that a shuffling loader gives the same batches in every run.
    """
    with _untouched(seed=seed):
        return Calibration(list(islice(calibration.batches, batches)), calibration.loss)


def _run(
    model: nn.Module,
    layers: Iterable[ReaderLayer],
    inputs: Any,
    positions: int,
    key: tuple[int, int],
    see: See,
) -> None:
    """Run the model once and show the rows of every call of a layer."""
    with ExitStack() as hooks:
        for layer in layers:
            draws = torch.Generator().manual_seed(zlib.crc32(f"{key} {layer.tensor}".encode()))

            def look(
                _: nn.Module,
                args: tuple[Any, ...],
                kwargs: dict[str, Any],
                layer: ReaderLayer = layer,
                draws: torch.Generator = draws,
            ) -> None:
                see(layer, *layer.rows(args[0] if args else kwargs["input"], positions, draws))

            handle = layer.module.register_forward_pre_hook(look, with_kwargs=True)
            hooks.callback(handle.remove)
        args, kwargs = as_call(inputs)
        # Some modules write to their buffers even in eval mode.
        with holding(model, {n: b.detach().clone() for n, b in model.named_buffers()}):
            model(*args, **kwargs)


@contextmanager
def _untouched(*models: nn.Module | None, seed: int) -> Iterator[None]:
    """Put the models in eval mode and seed the random state; put everything back."""
    present = [m for m in models if m is not None]
    with torch.random.fork_rng(devices=[]), mode_kept(*present), torch.no_grad():
        # Not `torch.manual_seed`, which would also seed devices that nobody puts back.
        torch.default_generator.manual_seed(seed)
        for model in present:
            model.eval()
        yield


def _check_called(layers: Iterable[ReaderLayer], found: dict[str, Moments]) -> None:
    silent = [layer.tensor for layer in layers if layer.tensor not in found]
    if silent:
        raise InputError(
            f"the layer of {silent[0]} is never called as a module (fused attention reads its weight alone), "
            "so what it reads cannot be seen; exclude the groups it reads with scope=Scope(exclude=…)"
        )
