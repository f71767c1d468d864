from __future__ import annotations

import pytest
import torch
from torch import nn

from billhook.methods.sparse.synflow import Synflow, _scores
from tests.networks import build
from tests.unit.methods.sparse.problems import largest, masks, problem, same


def _deep(layers: int = 3, width: int = 6, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [nn.Linear(width, width, bias=False), nn.ReLU()]
        return nn.Sequential(*parts[:-1])


def test_every_layer_passes_on_the_whole_flow() -> None:
    model = _deep()
    scores = _scores(problem(model, 0.5, inputs=torch.zeros(1, 6)), 1)
    flow = torch.ones(6, dtype=torch.float64)
    for weight in model.parameters():
        flow = weight.detach().double().abs() @ flow
    assert all(s.dtype == torch.float64 for s in scores.values())
    for score in scores.values():
        assert float(score.sum()) == pytest.approx(float(flow.sum()), rel=1e-12)


def test_one_round_leaves_the_smallest_shares_of_the_flow() -> None:
    model = _deep()
    posed = problem(model, 0.5, inputs=torch.zeros(1, 6))
    assert same(masks(Synflow(rounds=1).run(posed)), largest(_scores(posed, 1), 0.5))


def test_rounds_score_what_is_left() -> None:
    model = _deep()
    posed = problem(model, 0.75, inputs=torch.zeros(1, 6))
    first = largest(_scores(posed, 1), 0.5)
    sparse = _deep()
    with torch.no_grad():
        for name, mask in first.items():
            sparse.get_parameter(name).mul_(mask)
    second = largest(_scores(problem(sparse, 0.75, inputs=torch.zeros(1, 6)), 2), 0.75)
    assert same(masks(Synflow(rounds=2).run(posed)), second)


def test_many_rounds_keep_a_deep_network_connected_where_one_does_not() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 60, bias=False), nn.Linear(60, 60, bias=False), nn.Linear(60, 4))

    def flow(rounds: int) -> float:
        sparse = Synflow(rounds=rounds).run(problem(model, 0.99, inputs=torch.zeros(1, 40))).model
        outputs = torch.ones(1, 40)
        for layer in sparse:
            outputs = outputs @ layer.weight.detach().abs().T
        return float(outputs.sum())

    assert flow(100) > 2 * flow(1)


def test_the_weights_of_the_network_come_back_to_the_bit_and_the_signs_do_not_matter() -> None:
    model, inputs = build("plain")
    with torch.no_grad():
        model.conv2.weight[0] = -0.0
    before = {name: t.clone() for name, t in model.state_dict().items()}
    expected = masks(Synflow(rounds=7).run(problem(model, 0.6, inputs=inputs)))
    after = model.state_dict()
    assert all(torch.equal(after[name], t) and after[name].dtype == t.dtype for name, t in before.items())
    assert torch.equal(torch.signbit(after["conv2.weight"]), torch.signbit(before["conv2.weight"]))
    with torch.no_grad():
        model.conv2.weight.neg_()
        model.bn1.running_mean.add_(3)
    assert same(masks(Synflow(rounds=7).run(problem(model, 0.6, inputs=inputs))), expected)


def test_what_stays_has_the_values_it_had() -> None:
    model, inputs = build("plain")
    outcome = Synflow(rounds=7).run(problem(model, 0.6, inputs=inputs))
    for name, mask in masks(outcome).items():
        assert torch.equal(outcome.model.get_parameter(name), model.get_parameter(name) * mask)


def test_a_flow_that_leaves_the_range_of_float32_is_no_obstacle() -> None:
    with torch.no_grad():
        for factor in (20.0, 1e-3):
            model = _deep(layers=40, width=16)
            for weight in model.parameters():
                weight.mul_(factor)
            outcome = Synflow(rounds=5).run(problem(model, 0.5, inputs=torch.zeros(1, 16)))
            kept = [float(m.double().mean()) for m in masks(outcome).values()]
            assert min(kept) > 0.3  # every layer has the same share of the flow


def test_every_round_leaves_what_the_schedule_says_and_all_stays_at_sparsity_zero() -> None:
    posed = problem(_deep(), 0.9, inputs=torch.zeros(1, 6))
    log = Synflow().run(posed).log
    left = [108 * (1 - entry["sparsity"]) for entry in log]
    assert len(left) == 100
    assert all(abs(a - 108 * 0.1 ** (t / 100)) < 1 for t, a in enumerate(left, start=1))
    nothing = Synflow(rounds=3).run(problem(_deep(), 0.0, inputs=torch.zeros(1, 6)))
    assert all(mask.all() for mask in masks(nothing).values())


def test_it_needs_no_data() -> None:
    posed = problem(_deep(), 0.5, inputs=torch.zeros(1, 6), data=None)
    with_data = problem(_deep(), 0.5, inputs=torch.randn(1, 6))
    assert same(masks(Synflow().run(posed)), masks(Synflow().run(with_data)))
