"""Terms of whole networks: by hand, rounded up to blocks, never falling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from billhook.errors import InputError
from billhook.search.latencies.work import WorkTerms, require_difference
from tests.networks import NETWORKS
from tests.search import problem, problem_of


def test_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 5, 1)).eval()
    searched = problem_of(model, torch.zeros(1, 3, 4, 4), criterion="first")
    terms = WorkTerms(searched.space, "onnxruntime")
    row = np.flatnonzero(np.array(searched.space.genes[0].values) == 20)[None]
    found = terms.of(row)[0]
    # Outputs as they are, in blocks of 16, in wide blocks of 64; inputs as they are, in blocks of 16.
    full = [27 * 32 + 32 * 5, 27 * 32 + 32 * 5, 27 * 32 + 32 * 16, 27 * 32 + 32 * 16, 27 * 64 + 32 * 64]
    left = [27 * 20 + 20 * 5, 27 * 20 + 32 * 5, 27 * 32 + 20 * 16, 27 * 32 + 32 * 16, 27 * 64 + 20 * 64]
    assert found[:5] == pytest.approx(np.array(left) / full)
    assert found[6:8] == pytest.approx([25 / 37, 1.0])  # written
    assert found[8:10] == pytest.approx([(27 + 20) / (27 + 32), 1.0])  # read
    assert len(found) == 10 * 3  # of all layers, of 3×3 and of 1×1
    assert terms.penalty.tolist() == [0.0] * 10 + [1.0] * 20


@pytest.mark.parametrize("name", NETWORKS)
def test_no_term_falls_where_a_gene_rises(name: str) -> None:
    space = problem(name).space
    terms, rng = WorkTerms(space, "onnxruntime"), np.random.default_rng(0)
    rows = space.random(rng, 20)
    for gene in range(len(space.genes)):
        more = rows.copy()
        more[:, gene] = space.highest[gene]
        assert (terms.of(more) >= terms.of(rows) - 1e-12).all()
    assert terms.of(space.highest[None]) == pytest.approx(1.0)


def test_zeros_are_less_work_in_an_engine_that_leaves_them_out() -> None:
    space = problem("plain", pattern="4x1|dense", backend="billhook").space
    terms = WorkTerms(space, "billhook")
    sparse = space.highest.copy()
    sparse[len(space.groups) :] = 0
    dense, found = terms.of(np.stack([space.highest, sparse]))[:, :10]
    assert (found[:6] < 0.5 * dense[:6]).all()
    assert found[6:] == pytest.approx(dense[6:])  # values are written and read all the same


def test_zeros_that_make_no_difference_are_refused() -> None:
    space = problem("plain", pattern="4x1|dense").space
    with pytest.raises(InputError, match=r"densities make no difference .* 'onnxruntime'.*\(billhook\)"):
        require_difference(space, "onnxruntime")
    require_difference(problem("plain").space, "onnxruntime")
