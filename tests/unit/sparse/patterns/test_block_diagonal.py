from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from billhook.errors import InputError
from billhook.graph.patterns import parse_pattern
from billhook.graph.structure import Structure, viewed
from billhook.sparse.patterns.block_diagonal import BlockDiagonal

FOUR = parse_pattern("block_diagonal")


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def structure(w: torch.Tensor, pattern: Any = FOUR, transposed: bool = False) -> Structure:
    parts = pattern.choose(viewed(w, transposed=transposed), 0.5)
    return Structure(pattern, tuple(w.shape), parts, transposed)


@pytest.mark.parametrize("shape", [(16, 8), (16, 8, 3), (12, 20, 3, 3), (8, 8, 1, 2, 2)])
def test_three_quarters_leave_and_each_output_reads_one_block(shape: tuple[int, ...]) -> None:
    s = structure(weight(*shape))
    assert s.sparsity == pytest.approx(0.75)
    pairs = viewed(s.mask).float()
    assert (pairs == pairs[:, :, :1]).all()  # kernels stay whole
    assert (pairs[:, :, 0].sum(1) == shape[1] // 4).all()
    assert torch.linalg.matrix_rank(pairs[:, :, 0]) == 4


def test_a_permuted_block_diagonal_weight_is_its_own_projection() -> None:
    rows, columns = torch.randperm(16), torch.randperm(12)
    w = weight(16, 12, 3, 3) * ((rows % 4)[:, None] == (columns % 4)[None, :])[:, :, None, None]
    assert torch.equal(structure(w).project(w), w)


def test_all_kernel_positions_count() -> None:
    w = torch.zeros(4, 4, 3, 3)
    # One large weight against nine of a medium size: 9 × 1.5² > 4² decides which inputs output 0 reads.
    w[:2, :2], w[2:, 2:] = 1.5, 1.5
    w[0, 2, 0, 0] = w[2, 0, 0, 0] = 4.0
    mask = structure(w, parse_pattern("block_diagonal:blocks=2")).mask
    assert mask[0, 1].all()
    assert not mask[0, 2].any()


def test_the_kept_energy_is_more_than_chance_would_keep() -> None:
    w = weight(64, 64)
    s = structure(w)
    assert float(s.project(w).square().sum() / w.square().sum()) > 1.3 / 4


def test_the_sparsity_is_fixed() -> None:
    w = weight(32, 16, 3, 3)
    view = viewed(w)
    for asked in (0.0, 0.5, 0.99):
        assert all(
            (FOUR.select(view**2, asked)[n] == FOUR.choose(view, 0.75)[n]).all()
            for n in FOUR.layout(view.shape)
        )
    assert FOUR.sparsities((32, 16, 9)) == (0.75, 0.75)
    assert parse_pattern("block_diagonal:blocks=8").sparsities((32, 16, 9)) == (0.875, 0.875)


@pytest.mark.parametrize("shape", [(10, 7), (5, 4, 3, 3), (6, 9), (4, 4)])
def test_the_sparsity_is_known_where_blocks_do_not_divide(shape: tuple[int, ...]) -> None:
    s = structure(weight(*shape))
    least, most = FOUR.sparsities((shape[0], shape[1], int(np.prod(shape[2:]))))
    assert s.sparsity == pytest.approx(least) == pytest.approx(most)


def test_transposed_convolutions_have_their_inputs_first() -> None:
    w = weight(8, 12, 2, 2)
    s = structure(w, transposed=True)
    assert s.parts["row_block"].shape == (12,)
    assert s.parts["column_block"].shape == (8,)
    assert (s.mask.float().sum((0, 2, 3)) == 2 * 4).all()


def test_layers_that_are_too_narrow_or_grouped_are_refused() -> None:
    assert FOUR.refusal((4, 4, 9)) is None
    assert "4 blocks in 16 outputs × 3 inputs" in str(FOUR.refusal((16, 3, 9)))
    assert "3 outputs" in str(FOUR.refusal((3, 16, 1)))
    assert "8 groups" in str(FOUR.refusal((64, 8, 9), groups=8))
    for text in ("block_diagonal:blocks=1", "block_diagonal:blocks=65", "block_diagonal:blocks=2.5"):
        with pytest.raises(InputError, match="blocks"):
            parse_pattern(text)


def test_json_brings_back_the_same_structure_in_few_bytes() -> None:
    for blocks in (2, 4, 5, 64):
        s = structure(weight(64, 64, 3, 3), parse_pattern(f"block_diagonal:blocks={blocks},restarts=1"))
        data = s.to_dict()
        back = Structure.from_dict(data)
        assert back == s
        assert torch.equal(back.mask, s.mask)
        assert sum(map(len, data["parts"].values())) < 400
    assert s.stored_bytes(4) < 64 * 64 * 9 * 4 / 64 + 200


def test_any_numbers_in_range_make_a_mask() -> None:
    rng = np.random.default_rng(0)
    shape = (6, 5, 4)
    w = weight(*shape)
    for blocks in (2, 4):
        pattern = BlockDiagonal(blocks=blocks)
        arrays = {
            n: [np.zeros(p.shape, np.uint8), rng.integers(0, blocks, p.shape)]
            for n, p in pattern.layout(shape).items()
        }
        for rows in (*arrays["row_block"], np.full(6, blocks - 1, np.uint8)):
            for columns in (*arrays["column_block"], np.arange(5) % 2 == 0):
                parts = {"row_block": rows, "column_block": columns}
                mask = pattern.mask(parts, shape)
                assert mask.shape == shape
                assert mask.dtype == torch.bool
                held = pattern.hold(w, parts, pattern.anchor(w, parts))
                assert pattern.values(parts, shape) == int((held != 0).sum())
                assert torch.equal(pattern.decode(pattern.encode(held, parts), parts, shape), held)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"options": {"blocks": 3}}, "the number 3"),  # the arrays are those of four blocks
        ({"options": {"blocks": 1}}, "blocks"),
        ({"shape": [16, 3]}, "4 blocks in 16 outputs × 3 inputs"),
        ({"parts": {"row_block": "", "column_block": ""}}, "array"),
        ({"parts": {"rows": ""}}, "expected"),
    ],
)
def test_a_structure_that_is_corrupted_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Structure.from_dict({**structure(weight(16, 16)).to_dict(), **change})


def test_stages_double_up_to_the_number_of_blocks() -> None:
    assert [s.blocks for s in parse_pattern("block_diagonal:blocks=16").stages()] == [2, 4, 8, 16]  # type: ignore[attr-defined]
    assert [s.blocks for s in BlockDiagonal(blocks=12, restarts=7).stages()] == [2, 4, 12]
    assert [s.blocks for s in BlockDiagonal(blocks=7).stages()] == [7]
    assert BlockDiagonal(blocks=12, restarts=7).stages()[-1] == BlockDiagonal(blocks=12, restarts=7)


def test_stages_without_training_lose_little_against_one_step() -> None:
    w = weight(64, 64)
    one_step = structure(w, BlockDiagonal(blocks=4)).project(w)
    staged = w
    for stage in BlockDiagonal(blocks=4).stages():
        before = staged
        staged = structure(staged, stage).project(staged)
        assert (before[staged != 0] != 0).all()  # nothing comes back
    assert float(staged.square().sum()) > 0.8 * float(one_step.square().sum())
    assert int((staged != 0).sum()) <= w.numel() // 4


@pytest.mark.parametrize(
    ("progress", "blocks"), [(0.0, None), (0.5, None), (0.6, 2), (0.85, 2), (0.86, 4), (0.99, 4), (1.0, 8)]
)
def test_on_the_way_there_are_fewer_blocks(progress: float, blocks: int | None) -> None:
    stage = BlockDiagonal(blocks=8).partly(progress)
    assert (None if stage is None else stage.blocks) == blocks
