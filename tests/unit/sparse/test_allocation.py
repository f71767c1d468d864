from __future__ import annotations

from collections.abc import Mapping
from math import prod

import pytest
import torch
from torch import Tensor

from billhook.errors import InputError
from billhook.graph.patterns import Pattern, parse_pattern
from billhook.sparse.allocation import ALLOCATIONS, allocate, reachable

SINGLE = parse_pattern("1x1")


def _energies(**values: list[float]) -> dict[str, Tensor]:
    return {name: torch.tensor(v).reshape(1, -1, 1) for name, v in values.items()}


def _random(seed: int = 0) -> dict[str, Tensor]:
    """Return energies of three tensors of very different size and scale."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"stem": (16, 3, 9), "middle": (64, 64, 9), "head": (10, 64, 1)}
    scales = {"stem": 4.0, "middle": 0.1, "head": 1.0}
    return {
        n: scales[n] * torch.rand(*s, generator=generator, dtype=torch.float64) for n, s in shapes.items()
    }


def _shared(
    energies: Mapping[str, Tensor], sparsity: float, how: str, pattern: Pattern = SINGLE
) -> dict[str, float]:
    return allocate(energies, dict.fromkeys(energies, pattern), sparsity, how)


def test_global_lets_the_smallest_of_all_leave() -> None:
    energies = _energies(a=[1, 2, 3, 4], b=[0.1, 0.2, 5, 6])
    assert _shared(energies, 0.375, "global") == {"a": 0.25, "b": 0.5}


def test_lamp_by_hand() -> None:
    # Scores e / Σ of those at least as large: a 0.1, 2/9, 3/7, 1; b 0.1/11.3, 0.2/11.2, 5/11, 1.
    energies = _energies(a=[4, 1, 3, 2], b=[0.1, 0.2, 5, 6])
    assert _shared(energies, 0.5, "lamp") == {"a": 0.5, "b": 0.5}
    assert _shared(energies, 0.375, "lamp") == {"a": 0.25, "b": 0.5}
    assert _shared(energies, 0.625, "lamp") == {"a": 0.75, "b": 0.5}  # 3/7 < 5/11


def test_lamp_does_not_see_the_scale_of_a_tensor() -> None:
    energies = _random()
    scaled = {name: e * 10.0**i for i, (name, e) in enumerate(energies.items())}
    assert _shared(scaled, 0.7, "lamp") == pytest.approx(_shared(energies, 0.7, "lamp"), abs=1e-9)
    assert _shared(scaled, 0.7, "global") != pytest.approx(_shared(energies, 0.7, "global"), abs=1e-2)


@pytest.mark.parametrize("how", ["global", "lamp"])
def test_nothing_collapses_however_small_a_tensor_is(how: str) -> None:
    energies = _energies(a=[1.0] * 50, b=[1e-12, 2e-12], c=[0.0] * 8)
    found = _shared(energies, 57 / 60, how)  # all that can leave
    assert {n: round((1 - s) * energies[n].numel()) for n, s in found.items()} == {"a": 1, "b": 1, "c": 1}
    by_lamp = _shared(energies, 0.9, "lamp")
    assert all(s < 1 for s in by_lamp.values())


def test_uniform_is_the_same_everywhere() -> None:
    assert _shared(_random(), 0.7, "uniform") == pytest.approx(dict.fromkeys(_random(), 0.7), abs=1e-9)


def test_erk_by_hand() -> None:
    """Densities in the proportion (outputs + inputs + kernel sides) / weights, as long as none is above 1."""
    energies = {
        "conv": torch.rand(40, 20, 9),
        "wide": torch.rand(80, 80, 9),
        "linear": torch.rand(50, 100, 1),
    }
    raw = {"conv": 66 / 7200, "wide": 166 / 57600, "linear": 152 / 5000}
    scale = 0.05 * (7200 + 57600 + 5000) / (66 + 166 + 152)
    found = _shared(energies, 0.95, "erk")
    # The formula takes one for the side of a linear layer's kernel of one position, as for 1 × 1 kernels.
    assert {n: 1 - s for n, s in found.items()} == pytest.approx(
        {n: scale * r for n, r in raw.items()}, rel=1e-6
    )


def test_what_erk_would_make_denser_than_dense_is_dense_and_the_others_make_up_for_it() -> None:
    found = _shared(_random(), 0.5, "erk")
    assert found["stem"] == found["head"] == 0.0
    sizes = {n: e.numel() for n, e in _random().items()}
    assert found["middle"] == pytest.approx(0.5 * sum(sizes.values()) / sizes["middle"], rel=1e-9)


@pytest.mark.parametrize("pattern", ["1x1", "block_punched:rows=2,columns=1"])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("how", ALLOCATIONS)
def test_the_structures_have_the_wanted_sparsity(how: str, sparsity: float, pattern: str) -> None:
    energies, kind = _random(), parse_pattern(pattern)
    found = _shared(energies, sparsity, how, kind)
    zeros = weights = 0
    for name, energy in energies.items():
        shape = tuple(energy.shape)
        mask = kind.mask(kind.select(energy, kind.unit_sparsity(found[name], shape)), shape)
        assert bool(mask.any())
        unit = prod(shape) / len(kind.units(energy))
        assert abs(int((~mask).sum()) - found[name] * prod(shape)) < unit
        zeros, weights = zeros + int((~mask).sum()), weights + prod(shape)
    assert abs(zeros - sparsity * weights) < 2 * len(energies)


def test_equal_energies_are_no_trouble() -> None:
    found = _shared(_energies(a=[1.0] * 10, b=[1.0] * 10), 0.5, "global")
    assert sum(10 * s for s in found.values()) == pytest.approx(10)


def test_what_a_pattern_needs_is_taken_into_account() -> None:
    energies = {"a": torch.rand(8, 8, 1), "b": torch.rand(8, 8, 1)}
    kinds = {"a": parse_pattern("2:4"), "b": SINGLE}
    least, most = reachable({n: (8, 8, 1) for n in energies}, kinds)
    assert least == pytest.approx(0.25)
    assert most > 0.7
    for how in ALLOCATIONS:
        found = allocate(energies, kinds, 0.6, how)
        assert found["a"] >= 0.5
        assert (found["a"] + found["b"]) / 2 == pytest.approx(0.6, abs=0.02)


def test_a_sparsity_out_of_reach_says_what_can_be_had() -> None:
    energies = _energies(a=[1.0, 2.0, 3.0, 4.0])
    with pytest.raises(InputError, match=r"leave 0\.0000 to 0\.7500 of the weights at zero"):
        _shared(energies, 0.8, "lamp")
    half = {"a": torch.rand(8, 8, 1)}
    with pytest.raises(InputError, match=r"sparsity=0\.2 cannot be had .* leave 0\.5000 to"):
        _shared(half, 0.2, "uniform", parse_pattern("2:4"))


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_a_sparsity_out_of_range_is_refused(sparsity: float) -> None:
    with pytest.raises(InputError, match="must be at least 0 and below 1"):
        _shared(_random(), sparsity, "lamp")


def test_an_unknown_way_lists_those_there_are() -> None:
    with pytest.raises(InputError, match="allocation='lump': expected one of uniform, global, lamp, erk"):
        _shared(_random(), 0.5, "lump")
