"""One set of weights runs as any candidate, and only what a candidate uses is trained."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from billhook.graph import apply, capture
from billhook.graph.graph import make_plan
from billhook.graph.patterns import parse_pattern
from billhook.graph.structure import impose_
from billhook.search.shared.network import Sampling, SharedNetwork, densest
from billhook.search.space import Space
from billhook.train import StepContext
from tests.networks import NETWORKS, build
from tests.search import batches, problem
from tests.small_net import net

SEARCHED = [name for name in NETWORKS if name != "transposed"]  # that one makes images


def _rows(space: Space, count: int) -> list[np.ndarray]:
    return list(space.random(np.random.default_rng(0), count))


@pytest.mark.parametrize("criterion", ["l1", "first"])
@pytest.mark.parametrize("name", SEARCHED)
def test_a_candidate_runs_as_the_network_that_a_plan_makes(name: str, criterion: str) -> None:
    searched = problem(name, round_to=1, criterion=criterion, pattern="4x1|dense")
    space, model = searched.space, copy.deepcopy(searched.model)
    rows = _rows(space, 3)
    shared = SharedNetwork(model, space, rows).eval()
    inputs, _ = batches(tuple(searched.example_inputs.shape[1:]))[0]
    for shared.chosen, row in enumerate(rows):
        small = apply(searched.model, make_plan(searched.graph, space.keep(row)))
        shared.masked = False
        torch.testing.assert_close(shared(inputs), small(inputs), atol=1e-5, rtol=1e-4)
        weights = dict(small.named_parameters())
        impose_(weights, densest(space, row, weights))
        shared.masked = True
        torch.testing.assert_close(shared(inputs), small(inputs), atol=1e-5, rtol=1e-4)


def test_training_mode_is_that_of_the_batch_and_gradients_reach_only_what_is_used() -> None:
    searched = problem("residual", round_to=1, criterion="first", pattern="4x1|dense")
    space, model = searched.space, copy.deepcopy(searched.model)
    row = space.lowest + 1
    shared = SharedNetwork(model, space, [row])
    shared.masked = True
    inputs, targets = batches()[0]
    shared.train()
    nn.functional.cross_entropy(shared(inputs), targets).backward()

    small = apply(searched.model, make_plan(searched.graph, space.keep(row))).train()
    weights = dict(small.named_parameters())
    structures = densest(space, row, weights)
    impose_(weights, structures)
    nn.functional.cross_entropy(small(inputs), targets).backward()
    kept = space.graph.kept(make_plan(space.graph, space.keep(row)))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        masks = kept.tensor(name, parameter.dim())
        used = [
            np.arange(s) if m is None else m.nonzero()[0] for s, m in zip(parameter.shape, masks, strict=True)
        ]
        expected = torch.zeros_like(parameter)
        grad = weights[name].grad
        assert grad is not None
        mask = structures[name].mask if name in structures else torch.ones_like(grad)
        expected[np.ix_(*used)] = grad * mask
        torch.testing.assert_close(parameter.grad, expected, atol=1e-5, rtol=1e-3, msg=name)


def test_masks_are_the_densest_groups_of_four_outputs_at_one_position() -> None:
    """o=8, g=4, one 1×1 convolution with two inputs: four groups; density 0.5 keeps two of them."""
    model = net(lambda m, x: m.conv(x).mean((2, 3)), conv=nn.Conv2d(2, 8, 1))
    graph = capture(model, torch.zeros(1, 2, 4, 4))
    space = Space(graph, {}, {}, {"conv.weight": [0.25, 0.5, 1.0]}, {"conv.weight": parse_pattern("4x1")})
    weight = torch.zeros(8, 2, 1, 1)
    weight[:4, 0, 0, 0] = torch.tensor([1.0, -1, 1, -1])  # L1 4, L2 2
    weight[:4, 1, 0, 0] = torch.tensor([3.0, 0, 0, 0])  # L1 3, L2 3
    weight[4:, 0, 0, 0] = torch.tensor([0.0, 0, -2, -3.5])  # L1 5.5
    weight[4:, 1, 0, 0] = 0.1
    masks = [densest(space, np.array([i]), {"conv.weight": weight}) for i in range(3)]
    assert masks[0]["conv.weight"].mask[:, :, 0, 0].int().tolist() == [[0, 0]] * 4 + [[1, 0]] * 4
    assert masks[1]["conv.weight"].mask[:, :, 0, 0].int().tolist() == [[1, 0]] * 8
    assert masks[2] == {}


def test_masks_are_those_of_the_slice_and_of_the_present_weights() -> None:
    searched = problem("plain", criterion="first", pattern="4x1|dense")
    space, model = searched.space, copy.deepcopy(searched.model)
    rows = [space.highest.copy() for _ in range(2)]
    density = next(i for i, g in enumerate(space.genes) if g.name == "density conv2.weight")
    width = next(i for i, g in enumerate(space.genes) if g.name == "channels conv2")
    for row in rows:
        row[density] = 4  # density 0.5
    rows[1][width] = 2  # 12 of 24 channels
    with torch.no_grad():
        model.conv2.weight[12:] *= 100  # type: ignore[operator, union-attr]
    weight = model.conv2.weight.detach()  # type: ignore[union-attr]
    whole = densest(space, rows[0], {"conv2.weight": weight, **_others(space, model)})
    part = densest(space, rows[1], {**_others(space, model), "conv2.weight": weight[:12]})
    assert whole["conv2.weight"].mask[12:].all()
    assert not whole["conv2.weight"].mask[:12].any()
    assert float(part["conv2.weight"].mask.float().mean()) == pytest.approx(0.5, abs=0.01)


def _others(space: Space, model: nn.Module) -> dict[str, torch.Tensor]:
    named = dict(model.named_parameters())
    return {layer.tensor: named[layer.tensor] for layer in space.layers}


def test_every_candidate_is_drawn_as_often_and_the_step_decides_which() -> None:
    model, _ = build("plain")
    space = problem("plain").space
    shared = SharedNetwork(model, space, _rows(space, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def drawn(seed: int, steps: range) -> list[int]:
        found = []
        for step in steps:
            Sampling(seed).before_step(StepContext(shared, optimizer, step, 0, 2000))
            found.append(shared.chosen)
        return found

    assert np.bincount(drawn(0, range(2000)), minlength=4) == pytest.approx([500] * 4, abs=80)
    assert drawn(0, range(20, 40)) == drawn(0, range(40))[20:]
    assert drawn(0, range(40)) != drawn(1, range(40))
