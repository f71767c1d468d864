from __future__ import annotations

import numpy as np
import torch
from torch import nn

from billhook.graph import capture, make_plan, verify
from billhook.methods._units import Masks, live_tensors, open_gates_, readers, silence_, spread, unit_norms
from tests import fused
from tests.networks import NETWORKS, batches, build


def test_silencing_readers_is_what_removal_means() -> None:
    for name in NETWORKS:
        model, x = build(name)
        graph = capture(model, x)
        keep = {g.id: np.arange(g.size) % 3 > 0 for g in graph.groups.prunable if g.size > 2}
        plan = make_plan(graph, keep)
        silence_(live_tensors(model), graph.groups.prunable, keep)
        check = verify(model, plan, x)
        small = plan.attached(graph)
        assert check.exact, name
        with torch.no_grad():  # the silenced network already computes what the smaller one will
            from billhook import apply

            torch.testing.assert_close(model(x), apply(model, small)(x), rtol=1e-4, atol=1e-5)


def test_masks_change_forward_and_backward_and_come_off_without_a_trace() -> None:
    model, _ = build("residual")
    groups = capture(*build("residual")).groups.prunable
    inputs, targets = batches("residual", 1)[0]
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    masks = Masks(model, groups)
    generator = torch.Generator().manual_seed(0)
    factors = {g.id: torch.rand(g.size, generator=generator) for g in groups}

    def loss(factors: dict[str, torch.Tensor]) -> torch.Tensor:
        masks.put(factors)
        model.zero_grad()
        value = nn.functional.cross_entropy(model(inputs), targets)
        value.backward()
        return value.detach()

    loss(factors)
    slopes = masks.take_off()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    gradient = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    for group in groups:  # the slope is that of the loss along the factor
        for unit in (0, group.size - 1):
            step = 1e-2
            values = []
            for sign in (1, -1):
                moved = {g: f.clone() for g, f in factors.items()}
                moved[group.id][unit] += sign * step
                values.append(loss(moved))
                masks.take_off()
            slope = (values[0] - values[1]) / (2 * step)
            torch.testing.assert_close(slopes[group.id][unit], slope, rtol=5e-2, atol=2e-4)
    zeroed = {g: f.clone() for g, f in factors.items()}
    used = int(gradient["outer1.weight"].abs().sum((0, 2, 3)).argmax())
    zeroed["inner1"][used] = 0.0
    loss(zeroed)
    masks.take_off()
    weight = dict(model.named_parameters())["outer1.weight"]
    assert weight.grad is not None
    assert torch.count_nonzero(weight.grad[:, used]) == 0  # what was masked does not learn
    assert torch.count_nonzero(gradient["outer1.weight"][:, used]) > 0


def test_units_wider_than_one_channel_spread_over_their_indices() -> None:
    model, x = build("flatten")
    group = capture(model, x).groups["conv2"]
    (member,) = readers(group, live_tensors(model))
    vector = spread(torch.arange(12.0), member, 48)
    assert vector.tolist() == [float(i // 4) for i in range(48)]


def test_norms_are_those_of_the_producers() -> None:
    model, x = build("plain")
    group = capture(model, x).groups["conv1"]
    tensors = live_tensors(model)
    expected = tensors["conv1.weight"].square().sum((1, 2, 3))
    torch.testing.assert_close(unit_norms(tensors, group), expected)
    torch.testing.assert_close(
        unit_norms(tensors, group, power=1, which="all"),
        tensors["conv1.weight"].abs().sum((1, 2, 3)) + tensors["conv2.weight"].abs().sum((0, 2, 3)),
    )


class Gated(nn.Module):
    """A trained vector called `gate` reads the channels of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate = nn.Linear(4, 8), nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x).relu() @ self.gate


def test_only_gates_of_copies_are_opened() -> None:
    model, x = Gated(), torch.randn(2, 4)
    before = model.gate.detach().clone()
    open_gates_(model, capture(model, x).groups)
    assert torch.equal(model.gate, before)
    network, _ = fused.fused("basic")
    graph = fused.fused_graph("basic")
    gates = {n: b for n, b in network.named_buffers() if n.endswith("gate")}
    silence_(
        live_tensors(network), graph.groups.prunable, {g.id: np.zeros(g.size, bool) for g in graph.groups}
    )
    assert all((gate == 0).all() for gate in gates.values())
    open_gates_(network, graph.groups.prunable)
    assert all((gate == 1).all() for gate in gates.values())
