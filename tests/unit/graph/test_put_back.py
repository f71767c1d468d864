"""Weights of a smaller network, put back into full size, are those that the plan cuts out again."""

from __future__ import annotations

import pytest
import torch

from billhook.errors import ApplyError
from billhook.graph import apply, capture, make_plan
from billhook.graph.put_back import put_back
from billhook.graph.slicing import named_tensors
from tests.networks import NETWORKS, build


@pytest.mark.parametrize("name", NETWORKS)
def test_apply_gives_the_same_smaller_network_again(name: str) -> None:
    model, x = build(name)
    graph = capture(model, x)
    plan = make_plan(graph, {g.id: torch.arange(g.size) % 2 == 0 for g in graph.groups.prunable})
    small = apply(model, plan)
    with torch.no_grad():
        for number, (_, tensor) in enumerate(named_tensors(small)):
            if tensor.is_floating_point():
                tensor.mul_(1 + 0.1 * (number % 3))
    before = {n: t.clone() for n, t in named_tensors(model)}
    whole = put_back(model, plan, small)
    assert all(torch.equal(t, before[n]) for n, t in named_tensors(model)), "the model itself has changed"
    again = dict(named_tensors(apply(whole, plan)))
    assert again.keys() == dict(named_tensors(small)).keys()
    assert all(torch.equal(again[n], t) for n, t in named_tensors(small))


def test_what_leaves_keeps_its_weights() -> None:
    model, x = build("plain")
    stays = torch.arange(24) < 10
    plan = make_plan(capture(model, x), {"conv2": stays})
    small = apply(model, plan)
    torch.nn.init.zeros_(small.conv2.weight)
    whole = put_back(model, plan, small)
    assert not whole.conv2.weight[stays].any()
    assert torch.equal(whole.conv2.weight[~stays], model.conv2.weight[~stays])


def test_another_network_is_refused() -> None:
    model, x = build("plain")
    graph = capture(model, x)
    small = apply(model, make_plan(graph, {"conv2": torch.arange(24) < 10}))
    with pytest.raises(ApplyError, match=r"conv2\.weight has shape \(10, 16, 3, 3\).*leaves \(9, 16, 3, 3\)"):
        put_back(model, make_plan(graph, {"conv2": torch.arange(24) < 9}), small)
