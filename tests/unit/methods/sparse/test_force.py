from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from billhook.errors import InputError
from billhook.methods.sparse.force import Force
from billhook.methods.sparse.iter_snip import IterSnip
from billhook.methods.sparse.snip import Snip
from tests.unit.methods.sparse.problems import data, largest, masks, mlp, problem, same


def test_one_round_is_snip() -> None:
    for sparsity in (0.0, 0.5, 0.9):
        one = masks(Force(rounds=1).run(problem(mlp(), sparsity)))
        assert same(one, masks(Snip().run(problem(mlp(), sparsity))))


def _scores(dense: nn.Module, mask: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return |θ ⊙ g(θ ⊙ m)|, by autograd and nothing else."""
    sparse = mlp()
    with torch.no_grad():
        for name, m in mask.items():
            sparse.get_parameter(name).mul_(m)
    inputs, targets = data()[0]
    nn.functional.cross_entropy(sparse(inputs), targets).backward()
    return {
        name: (dense.get_parameter(name) * sparse.get_parameter(name).grad).detach().abs() for name in mask
    }


def test_rounds_score_dense_weights_with_the_gradient_of_the_sparse_network() -> None:
    dense = mlp()
    mask = {name: torch.ones_like(dense.get_parameter(name)).bool() for name in ("0.weight", "2.weight")}
    came_back = 0
    for t in range(1, 5):
        before, mask = mask, largest(_scores(dense, mask), 1 - 0.2 ** (t / 4))
        came_back += sum(int((m & ~before[name]).sum()) for name, m in mask.items())
    assert came_back == 3
    outcome = Force(rounds=4).run(problem(dense, 0.8))
    assert same(masks(outcome), mask)
    for name, m in mask.items():
        assert torch.equal(outcome.model.get_parameter(name), dense.get_parameter(name) * m)
    assert not same(mask, masks(IterSnip(rounds=4).run(problem(dense, 0.8))))


def test_the_sparsity_grows_to_what_is_wanted() -> None:
    outcome = Force(rounds=60).run(problem(mlp(), 0.9))
    left = [48 * (1 - entry["sparsity"]) for entry in outcome.log]
    assert len(left) == 60
    assert all(abs(a - 48 * 0.1 ** (t / 60)) < 1 for t, a in enumerate(left, start=1))


def test_it_asks_for_data() -> None:
    with pytest.raises(InputError, match="sparse method 'force' learns from data; give data="):
        Force().run(problem(mlp(), 0.5, data=None))
