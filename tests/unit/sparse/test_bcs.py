"""Blocked compressed storage: the same weights, the same products, fewer indices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from billhook.errors import InputError
from billhook.graph.patterns import parse_pattern
from billhook.graph.structure import Structure, viewed
from billhook.sparse.bcs import decode, encode, matvec
from tests.unit.sparse.patterns.made_weights import weight


def sparse(text: str, shape: tuple[int, ...], transposed: bool = False) -> tuple[torch.Tensor, Structure]:
    w, pattern = weight(*shape, dtype=torch.float32), parse_pattern(text)
    s = Structure(pattern, shape, pattern.choose(viewed(w, transposed=transposed), 0.6), transposed)
    return torch.where(s.mask, w, 0), s


CASES = [
    *((text, (16, 8, 3, 3), False) for text in ("8x1", "4x1", "3x2", "4x4", "1x1", "64x1", "unstructured")),
    *(
        (text, (16, 8, 3, 3), False)
        for text in ("filter", "channel", "column", "kernel_pattern", "unified:4x2")
    ),
    *((text, (13, 7, 3), False) for text in ("4x1", "8x4")),
    *((text, (13, 10), False) for text in ("4x1", "block", "block:axis=rows", "block:axis=both", "2:4")),
    *((text, (7, 12, 2, 2), True) for text in ("4x1", "8x2")),
]


@pytest.mark.parametrize(("text", "shape", "transposed"), CASES)
def test_what_is_stored_is_the_weight(text: str, shape: tuple[int, ...], transposed: bool) -> None:
    w, s = sparse(text, shape, transposed)
    stored = encode(w, s)
    assert torch.equal(decode(stored), w)
    matrix = viewed(w, transposed=transposed)
    matrix = matrix.reshape(matrix.shape[0], -1)
    for x in (torch.randn(matrix.shape[1]), torch.randn(matrix.shape[1], 5)):
        torch.testing.assert_close(matvec(stored, x), matrix @ x, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("rows", [2, 4, 8])
def test_rows_of_a_block_share_their_indices(rows: int) -> None:
    w, s = sparse(f"{rows}x1", (16, 8, 3, 3))
    stored = encode(w, s)
    lists = [np.flatnonzero(block) for block in s.mask.reshape(16, -1)[::rows].numpy()]
    assert stored.index_count == sum(len(columns) for columns in lists) == s.nonzeros // rows
    assert stored.index_count < s.nonzeros
    for columns, start, end in zip(lists, stored.pointer, stored.pointer[1:], strict=False):
        assert stored.columns[start:end].tolist() == columns.tolist()
    assert stored.values.shape == (stored.index_count, rows)


def test_a_block_that_is_gone_has_no_columns() -> None:
    w = torch.zeros(8, 4)
    w[4:] = 1.0
    pattern = parse_pattern("4x4")
    s = Structure(pattern, (8, 4), pattern.choose(viewed(w), 0.5))
    stored = encode(w, s)
    assert stored.pointer.tolist() == [0, 0, 4]
    assert torch.equal(decode(stored), w)


def test_a_weight_of_another_shape_is_refused() -> None:
    _, s = sparse("4x1", (16, 8, 3, 3))
    with pytest.raises(InputError, match="shape"):
        encode(torch.zeros(16, 8), s)
