from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from billhook.errors import InputError
from billhook.methods.sparse.grasp import Grasp
from tests.unit.methods.sparse.problems import data, masks, mlp, problem, same

SIZE = 8


def _quadratic(scale: float = 1.0) -> tuple[nn.Module, Tensor, Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Return a model whose loss is ½ θᵀHθ − bᵀθ, with θ, H, b and the data, of which the loss takes all."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(SIZE, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(scale * torch.randn(1, SIZE, generator=generator))
    inputs = torch.randn(20, SIZE, generator=generator, dtype=torch.float64)
    targets = torch.randn(20, 1, generator=generator, dtype=torch.float64)
    theta = model[0].weight.detach()[0].clone()
    return model, theta, inputs.T @ inputs, inputs.T @ targets[:, 0], [(inputs, targets)]


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum() / 2


def _kept(model: nn.Module, batches: list[tuple[Tensor, Tensor]], sparsity: float, pattern: str) -> list[int]:
    posed = problem(model, sparsity, pattern, inputs=batches[0][0], data=batches, loss=_loss)
    return masks(Grasp(temperature=1).run(posed))["0.weight"][0].nonzero()[:, 0].tolist()


@pytest.mark.parametrize("leaving", range(SIZE))
def test_on_a_quadratic_loss_those_with_the_largest_s_leave(leaving: int) -> None:
    model, theta, hessian, linear, batches = _quadratic(scale=0.2)
    s = -theta * (hessian @ (hessian @ theta - linear))
    expected = s.argsort()[: SIZE - leaving].sort().values.tolist()
    assert min(s) < 0 < max(s)
    kept = _kept(model, batches, leaving / SIZE, "block_punched:rows=1,columns=1")
    assert kept == expected


def test_what_leaves_first_makes_the_gradient_grow_most() -> None:
    model, theta, hessian, linear, batches = _quadratic(scale=1e-4)

    def squared_norm(without: int | None = None) -> float:
        rest = theta.clone()
        if without is not None:
            rest[without] = 0
        return float((hessian @ rest - linear).square().sum())

    changes = torch.tensor([squared_norm(q) - squared_norm() for q in range(SIZE)]).double()
    s = -theta * (hessian @ (hessian @ theta - linear))
    # Δ‖g‖² ≈ −2 θ · (H g) = 2S, for weights so small that second-order terms vanish.
    torch.testing.assert_close(changes, 2 * s, rtol=2e-2, atol=1e-3 * float(s.abs().max()))
    kept = _kept(model, batches, 0.5, "block_punched:rows=1,columns=1")
    assert set(range(SIZE)) - set(kept) == set(changes.topk(SIZE // 2).indices.tolist())


def test_blocks_are_compared_by_their_sums() -> None:
    model, theta, hessian, linear, batches = _quadratic()
    s = -theta * (hessian @ (hessian @ theta - linear))
    order = s.reshape(-1, 2).sum(1).argsort()
    for left in (1, 2, 3):
        kept = _kept(model, batches, 1 - left / 4, "block_punched:rows=1,columns=2")
        expected = sorted(w for b in order[:left].tolist() for w in (2 * b, 2 * b + 1))
        assert kept == expected


def test_nothing_leaves_if_everything_is_to_stay() -> None:
    assert all(mask.all() for mask in masks(Grasp().run(problem(mlp(), 0.0))).values())


def test_the_temperature_matters_for_cross_entropy() -> None:
    hot, cold = (masks(Grasp(temperature=t).run(problem(mlp(), 0.5))) for t in (200.0, 1.0))
    assert not same(hot, cold)


def test_more_batches_count_if_asked_for() -> None:
    one, three = (masks(Grasp(batches=n).run(problem(mlp(), 0.5, data=data(3)))) for n in (1, 3))
    assert not same(one, three)


def test_it_asks_for_data() -> None:
    with pytest.raises(InputError, match="sparse method 'grasp' learns from data; give data="):
        Grasp().run(problem(mlp(), 0.5, data=None))
