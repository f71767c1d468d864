from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
import torch

from billhook.graph.patterns import parse_pattern
from billhook.graph.structure import Structure
from billhook.sparse.patterns._roles import FREE, PRUNED, UNIFIED, best_roles
from billhook.sparse.patterns.block_punched import BlockPunched
from billhook.sparse.patterns.unified import Unified
from tests.unit.sparse.patterns.made_weights import error, projected, weight


def test_the_nearest_block_has_the_mean_magnitude() -> None:
    w = torch.tensor([0.9, -0.2, 0.4, -0.7], dtype=torch.float64).reshape(1, 4, 1)
    z = projected(Unified(1, 4), w, 0.0)
    torch.testing.assert_close(z.flatten(), 0.55 * torch.tensor([1.0, -1.0, 1.0, -1.0]).double())
    assert error(Unified(1, 4), w, 0.0) == pytest.approx(0.29)


@pytest.mark.parametrize("seed", range(5))
def test_no_signs_and_magnitude_are_nearer(seed: int) -> None:
    w = weight(1, 4, 1, seed=seed)
    magnitudes = torch.linspace(0, 3, 3001, dtype=torch.float64)[:, None]
    least = min(
        float((w.flatten() - magnitudes * torch.tensor(signs)).square().sum(1).min())
        for signs in product((-1.0, 1.0), repeat=4)
    )
    assert error(Unified(1, 4), w, 0.0) == pytest.approx(least, abs=1e-5)
    assert error(Unified(1, 4), w, 0.0) <= least + 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_no_other_three_of_six_blocks_are_better_unified(seed: int) -> None:
    w = weight(6, 4, 1, seed=seed)
    pattern = Unified(1, 4, unify=0.5)
    losses = (w.square().sum(1) - 4 * w.abs().mean(1).square()).flatten()
    least = min(float(losses[list(c)].sum()) for c in combinations(range(6), 3))
    assert error(pattern, w, 0.0) == pytest.approx(least)


def brute(pruning: np.ndarray, shared: np.ndarray, pruned: int, unified: int) -> float:  # type: ignore[type-arg]
    best = np.inf
    for p in combinations(range(len(pruning)), pruned):
        rest = [i for i in range(len(pruning)) if i not in p]
        for u in combinations(rest, unified):
            best = min(best, pruning[list(p)].sum() + (pruning - shared)[list(u)].sum())
    return float(best)


@pytest.mark.parametrize("kind", ["random", "integers", "zeros", "equal", "flat blocks"])
def test_no_roles_lose_less(kind: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(12):
        n = int(rng.integers(1, 8))
        w = rng.standard_normal((n, 3))
        if kind == "integers":  # many ties
            w = np.round(w)
        elif kind == "zeros":
            w[rng.random(n) < 0.6] = 0
        elif kind == "equal":
            w[:] = w[0]
        elif kind == "flat blocks":  # unifying costs nothing
            w[:] = np.abs(w[:, :1])
        pruning, shared = np.square(w).sum(1), 3 * np.abs(w).mean(1) ** 2
        for pruned in range(n + 1):
            for unified in range(n + 1 - pruned):
                roles = best_roles(pruning, shared, pruned, unified)
                assert ((roles == PRUNED).sum(), (roles == UNIFIED).sum()) == (pruned, unified)
                loss = pruning[roles == PRUNED].sum() + (pruning - shared)[roles == UNIFIED].sum()
                assert loss == pytest.approx(brute(pruning, shared, pruned, unified), abs=1e-12)


@pytest.mark.parametrize("unify", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("sparsity", [0.0, 0.4, 0.7])
def test_the_projection_is_as_near_as_the_roles_say(unify: float, sparsity: float) -> None:
    w = weight(7, 5, 1)  # 4 × 3 blocks of 2×2, smaller at the borders
    blocks = [b for row in w[:, :, 0].split(2) for b in row.split(2, 1)]
    pruning = np.array([float(b.square().sum()) for b in blocks])
    shared = np.array([b.numel() * float(b.abs().mean()) ** 2 for b in blocks])
    pruned = int(sparsity * 12 + 1e-9)
    unified = int(np.ceil(unify * (12 - pruned) - 1e-9))
    pattern = Unified(2, 2, unify=unify)
    roles = pattern.choose(w, sparsity)["role"]
    assert ((roles == PRUNED).sum(), (roles == UNIFIED).sum()) == (pruned, unified)
    expected = best_roles(pruning, shared, pruned, unified)
    loss = pruning[expected == PRUNED].sum() + (pruning - shared)[expected == UNIFIED].sum()
    assert error(pattern, w, sparsity) == pytest.approx(loss)


@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.9])
def test_without_unifying_it_prunes_blocks(sparsity: float) -> None:
    w = weight(8, 8, 9)
    pruned = projected(Unified(4, 2, unify=0.0), w, sparsity)
    assert torch.equal(pruned, projected(BlockPunched(4, 2), w, sparsity))


def test_a_magnitude_of_zero_is_pruning() -> None:
    w, pattern = weight(8, 8, 1), Unified(4, 4)
    parts = pattern.choose(w, 0.5)
    v_is_zero = {"role": parts["role"].copy()}
    gone = torch.from_numpy(parts["role"] == PRUNED)
    z = Structure(pattern, (8, 8, 1), parts).project(w)
    v_is_zero["role"][parts["role"] == PRUNED] = UNIFIED
    s = Structure(pattern, (8, 8, 1), v_is_zero)
    assert torch.equal(s.project(z), z)
    assert int((z == 0).sum()) == 16 * int(gone.sum())


def test_the_energy_alone_prunes_the_least_and_keeps_the_most_free() -> None:
    energy = torch.arange(1.0, 9.0).reshape(8, 1, 1)
    roles = Unified(1, 1, unify=0.5).select(energy, 0.25)["role"]
    assert roles.tolist() == [PRUNED, PRUNED, UNIFIED, UNIFIED, UNIFIED, FREE, FREE, FREE]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_magnitudes_of_a_block_are_equal_bit_by_bit(dtype: torch.dtype) -> None:
    w = weight(9, 7, 9, dtype=dtype)
    pattern = Unified(2, 3)
    s = Structure(pattern, (9, 7, 9), pattern.choose(w, 0.3))
    anchor = s.anchor(w)
    for values in (w, -w, weight(9, 7, 9, seed=4, dtype=dtype)):  # also where the mean is below zero
        held = s.hold(values, anchor)
        assert held.dtype == dtype
        for row in held.split(2):
            for block in row.split(3, 1):
                for p in range(9):
                    assert len(block[:, :, p].abs().unique()) == 1
        assert torch.equal(s.hold(held, anchor), held)  # what is held already does not move
        assert torch.equal(s.decode(s.encode(held)), held)
    turned = s.hold(-w, anchor)
    assert torch.equal(turned, -s.hold(w, anchor))


def test_the_sign_of_zero_is_plus() -> None:
    w = torch.tensor([0.0, -0.0, 3.0, -3.0]).reshape(1, 4, 1)
    assert projected(Unified(1, 4), w, 0.0).flatten().tolist() == [1.5, 1.5, 1.5, -1.5]


def test_free_blocks_stay_as_they_are() -> None:
    w = weight(8, 8, 1, dtype=torch.float32)
    pattern = Unified(4, 4, unify=0.25)
    parts = pattern.choose(w, 0.0)
    s = Structure(pattern, (8, 8, 1), parts)
    assert (parts["role"] == FREE).sum() == 3
    assert int((s.project(w) == w).sum()) == 3 * 16
    assert s.values == 3 * 16 + 1


def test_the_size_is_a_number_and_sixteen_bits_per_block() -> None:
    w = weight(8, 8, 9, dtype=torch.float32)
    pattern = parse_pattern("unified:4x4")
    s = Structure(pattern, (8, 8, 9), pattern.choose(w, 0.0))
    numbers = s.encode(s.project(w))
    assert {n: t.numel() * t.element_size() for n, t in numbers.items()} == {
        "magnitudes": 36 * 4,
        "signs": 36 * 2,
        "values": 0,
    }
    assert s.stored_bytes(4) == 36 * 6 + 1 + 36 * 2 // 8  # and two bits per block for its role
    assert s.values == 36


@pytest.mark.parametrize("broken", ["magnitudes", "signs", "values"])
def test_numbers_that_do_not_fit_are_refused(broken: str) -> None:
    w = weight(8, 8, 1, dtype=torch.float32)
    pattern = Unified(4, 4, unify=0.5)
    s = Structure(pattern, (8, 8, 1), pattern.choose(w, 0.0))
    numbers = s.encode(s.project(w))
    with pytest.raises(ValueError, match="needed"):
        s.decode({**numbers, broken: numbers[broken][:-1]})
    with pytest.raises(ValueError, match="expected"):
        s.decode({n: t for n, t in numbers.items() if n != broken})
    with pytest.raises(ValueError, match="type"):
        s.decode({**numbers, "signs": numbers["signs"].float()})


def test_what_does_not_divide_is_padded_or_refused() -> None:
    assert Unified().refusal((6, 8, 9)) is None
    assert (
        Unified(remainder="refuse").refusal((6, 8, 9)) == "blocks of 4×4 do not divide 6 outputs × 8 inputs"
    )
    assert "groups" in str(Unified().refusal((12, 4, 9), groups=6))
