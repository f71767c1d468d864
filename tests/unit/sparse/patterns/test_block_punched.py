from __future__ import annotations

import pytest
import torch

from billhook.errors import InputError
from billhook.graph.patterns import parse_pattern
from billhook.graph.structure import Structure
from billhook.sparse.patterns.block_punched import BlockPunched
from billhook.sparse.patterns.column import Column
from tests.unit.sparse.patterns.made_weights import error, least_error, mask_of, projected, weight


def test_half_of_the_blocks_leave_and_the_error_is_their_energy() -> None:
    w = weight(8, 4, 9)
    pattern = BlockPunched(4, 2)
    parts = pattern.choose(w, 0.5)
    s = Structure(pattern, (8, 4, 9), parts)
    assert s.sparsity == 0.5
    energies = pattern.units(w.square())
    assert len(energies) == 2 * 2 * 9
    assert error(pattern, w, 0.5) == pytest.approx(float(energies[~torch.from_numpy(parts["keep"])].sum()))
    assert error(pattern, w, 0.5) == pytest.approx(float(energies.sort().values[:18].sum()))


@pytest.mark.parametrize("seed", range(5))
def test_no_choice_of_two_of_four_groups_is_nearer(seed: int) -> None:
    w = weight(4, 2, 2, seed=seed)
    units = [mask_of(w, slice(r, r + 2), slice(None), p) for r in (0, 2) for p in (0, 1)]
    assert error(BlockPunched(2, 2), w, 0.5) == pytest.approx(least_error(w, units, 2))


def test_blocks_at_the_border_are_smaller() -> None:
    w = weight(3, 3, 1, seed=1)
    slices = [(slice(0, 2), slice(0, 2)), (slice(0, 2), slice(2, 3)), (slice(2, 3), slice(0, 2)), (2, 2)]
    units = [mask_of(w, r, c) for r, c in slices]
    for leave in (1, 2, 3):
        assert error(BlockPunched(2, 2), w, leave / 4) == pytest.approx(least_error(w, units, leave))


def test_blocks_of_one_weight_are_magnitude_pruning() -> None:
    w = weight(6, 5, 9)
    kept = torch.zeros(w.numel(), dtype=torch.bool)
    kept[w.abs().flatten().topk(81).indices] = True  # ⌈0.3 · 270⌉
    assert torch.equal(projected(BlockPunched(1, 1), w, 0.7), w * kept.reshape(w.shape))


def test_a_block_as_large_as_the_layer_prunes_positions() -> None:
    w = weight(6, 5, 9)
    kept = w.square().sum((0, 1)).topk(4).indices
    expected = torch.zeros_like(w)
    expected[:, :, kept] = w[:, :, kept]
    assert torch.equal(projected(BlockPunched(6, 5), w, 5 / 9), expected)
    assert torch.equal(projected(BlockPunched(600, 500), w, 5 / 9), expected)


def test_blocks_of_all_outputs_prune_columns() -> None:
    w = weight(6, 5, 9)
    assert torch.equal(projected(BlockPunched(6, 1), w, 0.6), projected(Column(), w, 0.6))


def test_what_does_not_divide_is_padded_or_refused() -> None:
    assert parse_pattern("4x2").refusal((10, 4, 9)) is None
    refuse = parse_pattern("block_punched:rows=4,columns=2,remainder=refuse")
    assert refuse.refusal((8, 4, 9)) is None
    assert refuse.refusal((10, 4, 9)) == "blocks of 4×2 do not divide 10 outputs × 4 inputs"
    assert refuse.refusal((8, 5, 9)) == "blocks of 4×2 do not divide 8 outputs × 5 inputs"


def test_no_block_reaches_over_groups() -> None:
    pattern = parse_pattern("4x1")
    assert pattern.refusal((16, 4, 9), groups=4) is None
    assert "reach over the 8 groups of 2 outputs" in str(pattern.refusal((16, 4, 9), groups=8))


@pytest.mark.parametrize("text", ["0x1", "4x0", "block_punched:rows=1.5", "4x1:remainder=drop"])
def test_impossible_blocks_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_pattern(text)
