"""Cutting tensors and copying modules around them."""

from __future__ import annotations

import torch
from torch import nn

from billhook.graph import capture, make_plan
from billhook.graph.constants import Kept
from billhook.graph.slicing import copy_around, fill, hollow, named_tensors
from tests.networks import build


def test_shared_tensors_have_all_their_names() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert [n for n, _ in named_tensors(model)] == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_only_what_leaves_is_cut() -> None:
    model, x = build("plain")
    graph = capture(model, x)
    plan = make_plan(graph, {"conv2": torch.arange(24) < 10})
    kept = Kept(graph.flow, graph.partition, graph.keep_list(plan))
    cut = hollow(model, kept, graph.program.shapes)
    fill(cut, model, kept)
    changed = {n for n, t in cut.items() if t.shape != dict(named_tensors(model))[n].shape}
    assert changed == {
        "conv2.weight",
        "bn2.weight",
        "bn2.bias",
        "bn2.running_mean",
        "bn2.running_var",
        "conv3.weight",
    }
    assert torch.equal(cut["conv2.weight"], dict(model.named_parameters())["conv2.weight"][:10])
    assert cut["conv1.weight"].data_ptr() != dict(model.named_parameters())["conv1.weight"].data_ptr()
    assert isinstance(cut["conv2.weight"], nn.Parameter)
    assert not isinstance(cut["bn2.running_mean"], nn.Parameter)


def test_a_copy_holds_the_given_tensors_and_copies_the_rest() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    given = nn.Parameter(torch.zeros(2, 3))
    copied = copy_around(model, {"0.weight": given})
    assert copied[0].weight is given
    assert copied[1].weight is given
    assert copied[0].bias is not model[0].bias
    assert torch.equal(copied[0].bias, model[0].bias)
