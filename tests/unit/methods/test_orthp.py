from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from billhook.allocate.budget import Budget
from billhook.graph import apply, verify
from billhook.methods import Problem
from billhook.methods.orthp import OrthP, orthogonal
from billhook.train import mean_jsv
from tests.networks import NETWORKS, build


def linear_net(width: int = 8) -> nn.Sequential:
    """Return a linear perceptron of orthogonal layers, whose hidden layers are square."""
    torch.manual_seed(0)
    sizes = [(width // 2, width), (width, width), (width, width), (width, width)]
    model = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in sizes))
    for layer in model:
        nn.init.orthogonal_(layer.weight)
    return model


def _problem(model: nn.Module, x: Tensor, macs: float = 80 / 224) -> Problem:
    return Problem(model, x, Budget(macs=macs), round_to=1)


def test_isometry_is_lost_by_pruning_and_comes_back() -> None:
    model, x = linear_net(), torch.randn(4, 4)
    whole = mean_jsv(model, x)
    assert (whole.minimum, whole.maximum) == pytest.approx((1.0, 1.0), abs=1e-5)
    outcome = OrthP(activation="linear").run(_problem(model, x[:1]))
    assert set(outcome.plan.counts.values()) == {4}
    pruned, repaired = mean_jsv(apply(model, outcome.plan), x), mean_jsv(outcome.small(), x)
    assert pruned.mean < 0.7
    assert (repaired.minimum, repaired.maximum) == pytest.approx((1.0, 1.0), abs=1e-5)


@pytest.mark.parametrize(
    ("shape", "axis"), [((6, 10), 0), ((10, 6), 0), ((4, 3, 3, 3), 0), ((3, 5, 2, 2), 1)]
)
def test_rows_or_columns_are_orthonormal_times_the_gain(shape: tuple[int, ...], axis: int) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    matrix = orthogonal(weight, axis, gain=2.0).movedim(axis, 0).flatten(1)
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    torch.testing.assert_close(gram, 4 * torch.eye(len(gram)), atol=1e-5, rtol=0)


def test_signs_make_it_unique() -> None:
    """(3, 4) has Q = (0.6, 0.8); an orthogonal matrix comes back as it is."""
    torch.testing.assert_close(orthogonal(torch.tensor([[3.0, 4.0]])), torch.tensor([[0.6, 0.8]]))
    torch.testing.assert_close(orthogonal(torch.tensor([[-3.0, 4.0]])), torch.tensor([[-0.6, 0.8]]))
    rotation = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    torch.testing.assert_close(orthogonal(rotation), rotation)


def test_all_that_leaves_and_all_that_makes_no_unit_is_untouched() -> None:
    model, x = build("plain")
    outcome = OrthP().run(_problem(model, x, 0.5))
    before, after = model.state_dict(), outcome.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"conv1.weight", "conv2.weight", "conv3.weight"}
    gone = {g: torch.from_numpy(~k) for g, k in outcome.plan.keep.items()}
    assert torch.equal(after["conv2.weight"][gone["conv2"]], before["conv2.weight"][gone["conv2"]])
    assert torch.equal(after["conv2.weight"][:, gone["conv1"]], before["conv2.weight"][:, gone["conv1"]])
    small = outcome.small().get_parameter("conv2.weight").detach().flatten(1)
    torch.testing.assert_close(small @ small.T, 2 * torch.eye(len(small)), atol=1e-5, rtol=0)


def test_the_units_of_smallest_weights_leave() -> None:
    model, x = linear_net(), torch.randn(1, 4)
    with torch.no_grad():
        model[1].weight[[2, 5]] *= 0.1
    plan = OrthP().run(_problem(model, x, 0.7)).plan
    assert not plan.keep["1"][[2, 5]].any()


@pytest.mark.parametrize("name", NETWORKS)
def test_removing_equals_silencing(name: str) -> None:
    model, x = build(name)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    outcome = OrthP().run(_problem(model, x, 0.6))
    assert verify(outcome.model, outcome.plan, x).exact
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
