from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from billhook.errors import InputError
from billhook.methods.sparse._at_initialisation import energies_of, keep_at, progress_of
from billhook.methods.sparse._sensitivity import sensitivity
from billhook.methods.sparse.snip import Snip
from billhook.sparse.holding import holds
from billhook.train import holding
from tests.unit.methods.sparse.problems import data, largest, masks, mlp, problem, same


def _by_differences(model: nn.Module) -> dict[str, Tensor]:
    """Return |dL/dm| for a factor m = 1 on every weight."""
    inputs, targets = data()[0]
    step, found = 1e-5, {}
    for name in ("0.weight", "2.weight"):
        derivatives = torch.zeros_like(model.get_parameter(name))
        for index in torch.cartesian_prod(*(torch.arange(s) for s in derivatives.shape)).tolist():
            losses = []
            for factor in (1 + step, 1 - step):
                twin = copy.deepcopy(model)
                with torch.no_grad():
                    twin.get_parameter(name)[tuple(index)] *= factor
                    losses.append(float(nn.functional.cross_entropy(twin(inputs), targets)))
            derivatives[tuple(index)] = abs(losses[0] - losses[1]) / (2 * step)
        found[name] = derivatives.detach()
    return found


def test_the_score_is_the_derivative_with_respect_to_a_factor_on_each_weight() -> None:
    model = mlp()
    found = sensitivity(problem(model, 0.5), 1, batches=1, name="snip")
    for name, expected in _by_differences(model).items():
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.8])
def test_the_largest_scores_of_all_tensors_together_stay(sparsity: float) -> None:
    model = mlp()
    expected = largest(_by_differences(model), sparsity)
    assert same(masks(Snip().run(problem(model, sparsity))), expected)
    uneven = {name: float(mask.double().mean()) for name, mask in expected.items()}
    assert uneven["0.weight"] != pytest.approx(uneven["2.weight"], abs=0.02)


def test_another_way_to_share_out_zeros_can_be_asked_for() -> None:
    uniform = masks(Snip().run(problem(mlp(), 0.5, allocation="uniform")))
    assert {name: int(mask.sum()) for name, mask in uniform.items()} == {"0.weight": 15, "2.weight": 9}


def test_one_batch_is_the_default() -> None:
    batches = data(3)
    one, first, three = (
        masks(Snip(batches=n).run(problem(mlp(), 0.5, data=given)))
        for n, given in ((1, batches), (3, batches[:1]), (3, batches))
    )
    assert same(one, first)
    assert not same(one, three)


def test_the_sum_over_a_block_counts() -> None:
    model = mlp()
    found = masks(Snip().run(problem(model, 0.5, "block_punched:rows=3,columns=1")))
    scores = _by_differences(model)
    sums = {name: s.reshape(-1, 3, s.shape[1]).sum(1) for name, s in scores.items()}
    blocks = largest(sums, 0.5)
    assert same(found, {name: keep.repeat_interleave(3, 0) for name, keep in blocks.items()})


def test_no_layer_is_emptied() -> None:
    model = mlp()
    with torch.no_grad():
        model[0].weight.mul_(1e-9)  # nothing that the loss would feel
    outcome = Snip().run(problem(model, 0.9))
    assert {name: int(m.sum()) for name, m in masks(outcome).items()} == {"0.weight": 1, "2.weight": 3}


def test_masked_weights_stay_zero_for_ten_steps_of_sgd() -> None:
    outcome = Snip().run(problem(mlp(), 0.7))
    model, (inputs, targets) = outcome.model, data()[0]
    before = model[0].weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    with holding(model, optimizer, outcome.structures):
        for _ in range(10):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    assert holds(model, outcome.structures) is None
    mask = outcome.structures["0.weight"].mask
    assert bool((model[0].weight[~mask] == 0).all())
    assert bool((model[0].weight[mask] != before[mask]).all())


@pytest.mark.parametrize("rounds", [1, 3, 60, 100])
def test_schedules_end_exactly(rounds: int) -> None:
    for schedule in ("exponential", "linear"):
        keep = [keep_at(t, rounds, 0.05, schedule) for t in range(1, rounds + 1)]
        assert keep[-1] == pytest.approx(0.05, rel=1e-12)
        assert all(a > b for a, b in zip([1.0, *keep], keep, strict=False))
        assert progress_of(rounds, rounds, 0.05, schedule) == 1.0
    half = keep_at(1, 2, 0.04, "exponential"), keep_at(1, 2, 0.04, "linear")
    assert half == pytest.approx((0.2, 0.52))


def test_keeping_everything_is_no_division_by_zero() -> None:
    assert progress_of(1, 5, 1.0) == 1.0
    for rounds in (1, 4):
        outcome = Snip(rounds=rounds).run(problem(mlp(), 0.0))
        assert all(mask.all() for mask in masks(outcome).values())


@pytest.mark.parametrize("schedule", ["exponential", "linear"])
def test_every_round_leaves_what_its_schedule_says(schedule: str) -> None:
    outcome = Snip(rounds=6, schedule=schedule).run(problem(mlp(), 0.9))
    left = [48 * (1 - entry["sparsity"]) for entry in outcome.log]
    wanted = [48 * keep_at(t, 6, 0.1, schedule) for t in range(1, 7)]
    assert all(abs(a - b) < 1 for a, b in zip(left, wanted, strict=True))


def test_energies_keep_the_order_of_scores_and_none_is_negative() -> None:
    scores = {"a": torch.tensor([[3.0, -2.0]]), "b": torch.tensor([[-5.0, 0.0]])}
    energies = energies_of(scores)
    flat = torch.cat([energies["a"], energies["b"]], 1)[0]
    assert (flat > 0).all()
    assert flat.argsort().tolist() == [2, 1, 3, 0]
    torch.testing.assert_close(energies["a"][0, 0] / energies["a"][0, 1], torch.tensor(8 / 3).double())


def test_what_is_gone_has_less_energy_than_a_score_of_zero() -> None:
    masks = {"a": torch.tensor([[True, False, True]])}
    energies = energies_of({"a": torch.tensor([[0.0, -9.0, 1.0]])}, masks)["a"][0]
    assert energies[1] == 0
    assert 0 < energies[0] < energies[2]


def test_scores_that_are_all_zero_are_no_division_by_zero() -> None:
    assert torch.isfinite(energies_of({"a": torch.zeros(2, 2)})["a"]).all()


def test_scores_that_are_not_finite_are_named() -> None:
    model = mlp()
    with torch.no_grad():
        model[2].bias.mul_(0)
        model[2].weight[0, 0] = float("inf")
    with pytest.raises(InputError, match=r"'0.weight' are not finite|must be one finite number"):
        Snip().run(problem(model, 0.5))
    with pytest.raises(InputError, match=r"the scores of 'b' are not finite"):
        energies_of({"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])})


def test_it_asks_for_data() -> None:
    with pytest.raises(InputError, match="sparse method 'snip' learns from data; give data="):
        Snip().run(problem(mlp(), 0.5, data=None))
