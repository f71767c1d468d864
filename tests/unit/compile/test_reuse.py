"""Deep reuse: the engine computes what the reference does, and exactly so where only copies meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook.compile import reference
from billhook.compile.compiler import Compiled, compile_model
from billhook.compile.library import isas
from billhook.compile.products import Reuse
from billhook.compile.reuse import DeepReuse
from billhook.compile.session import EngineSession
from billhook.errors import InputError
from tests.unit.compile.exactness import Function, image

pytestmark = pytest.mark.usefixtures("engine")


def run(compiled: Compiled, x: Tensor, isa: str = "best", threads: int = 1) -> np.ndarray:
    """Return what the engine computes."""
    with EngineSession(compiled.file, threads=threads, isa=isa) as session:
        (found,) = session.run([x.numpy()])
    return found


def exact(model: nn.Module, x: Tensor) -> np.ndarray:
    """Return what PyTorch computes."""
    with torch.no_grad():
        return np.asarray(model(x))


def conv(outputs: int = 20, size: int = 3, channels: int = 6, **options: Any) -> nn.Conv2d:
    """Return a convolution, the same in every run."""
    torch.manual_seed(outputs + size)
    return nn.Conv2d(channels, outputs, size, **options)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "one layer": lambda: conv(padding=1),
    "without padding": lambda: conv(33, 2),
    "stride": lambda: conv(padding=1, stride=2),
    "1x1": lambda: conv(70, 1),
    "activation": lambda: nn.Sequential(conv(padding=1), nn.SiLU()),
    "shortcut": lambda: Function(
        lambda a, b, x: (b(y := a(x).relu()) + y).relu(), conv(16, 1), conv(16, 3, 16, padding=1)
    ),
}


@pytest.mark.parametrize("length", [7, 1000])
@pytest.mark.parametrize("name", MODELS)
def test_the_engine_computes_what_the_reference_does(name: str, length: int) -> None:
    model, x = MODELS[name]().eval(), image(6, 9, 11)
    compiled = compile_model(model, x, reuse=DeepReuse(length=length, hashes=5, outputs=1))
    assert any(isinstance(op, Reuse) for op in compiled.network)
    (expected,) = reference.run(compiled.network, [x.numpy()])
    assert np.abs(expected - exact(model, x)).max() > 1e-2  # or nothing would be approximated
    for isa in isas():
        assert np.abs(run(compiled, x, isa) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_pixels_that_are_all_different_are_computed_exactly() -> None:
    model, x = conv(padding=1), image(6, 5, 4)
    found = run(compile_model(model, x, reuse=DeepReuse(length=54, hashes=16, outputs=1)), x)
    assert np.abs(found - exact(model, x)).max() <= 1e-5


def test_copies_are_computed_once_and_exactly() -> None:
    model = conv(40, 1)
    different = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    x = different[:, torch.arange(64) % 4].reshape(1, 6, 8, 8)
    compiled = compile_model(model, x, reuse=DeepReuse(length=6, hashes=12, outputs=1))
    assert np.abs(run(compiled, x) - exact(model, x)).max() <= 1e-5
    (op,) = (op for op in compiled.network if isinstance(op, Reuse))
    (columns,) = reference.columns(op.taps, x.numpy(), op.output)
    clusters = np.unique(columns.T @ op.planes >= op.offsets, axis=0)
    assert 1 - len(clusters) / columns.shape[1] == 1 - 1 / 16  # each of them 16 times


def test_more_hyper_planes_are_more_exact() -> None:
    model, errors = conv(padding=1), np.zeros(4)
    for seed in range(6):
        x = torch.randn(2, 6, 12, 12, generator=torch.Generator().manual_seed(seed))
        for i, hashes in enumerate((2, 6, 10, 14)):
            compiled = compile_model(model, x, check=False, reuse=DeepReuse(9, hashes, 1))
            errors[i] += np.abs(run(compiled, x) - exact(model, x)).mean()
    assert (np.diff(errors) < 0).all()


def test_samples_tell_bright_pixels_from_dark_ones() -> None:
    model = conv(40, 1)
    one = torch.rand(6, 1, 1, generator=torch.Generator().manual_seed(0))
    x = (one * torch.linspace(0.1, 4, 64).reshape(1, 8, 8))[None]
    errors = [
        np.abs(run(compile_model(model, x, reuse=DeepReuse(6, 8, 1, samples)), x) - exact(model, x)).mean()
        for samples in (None, [x.numpy()])
    ]
    assert errors[1] < 0.8 * errors[0]


def test_the_same_every_time() -> None:
    model, x = nn.Sequential(conv(padding=1), nn.ReLU(), conv(40, 1, 20)), image(6, 9, 8, batch=3)
    reuse = DeepReuse(length=9, hashes=4, outputs=1)
    first, second = (compile_model(model, x, reuse=reuse) for _ in range(2))
    assert first.file == second.file
    one, two = run(first, x), run(first, x, threads=2)
    assert np.array_equal(one, two)
    assert np.array_equal(one[2:], run(first, x[2:]))


def test_layers_with_few_outputs_or_groups_stay_exact() -> None:
    x = image(6, 9, 8)
    for model in (conv(20), conv(36, groups=2), conv(6, groups=6)):
        compiled = compile_model(model, x, reuse=DeepReuse(outputs=21))
        assert not any(isinstance(op, Reuse) for op in compiled.network)


@pytest.mark.parametrize(
    "wrong", [{"length": 0}, {"hashes": 0}, {"hashes": 17}, {"outputs": 0}, {"length": 2.5}]
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="deep reuse needs"):
        DeepReuse(**wrong)


@pytest.mark.parametrize("samples", [np.zeros((0, 6, 9, 8)), np.full((1, 6, 9, 8), np.nan)])
def test_samples_from_which_nothing_can_be_learnt_are_refused(samples: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"deep reuse (has no samples|cannot learn)"):
        compile_model(conv(), image(6, 9, 8), reuse=DeepReuse(outputs=1, samples=[samples]))
