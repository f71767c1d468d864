"""Who shares memory with whom in a captured graph."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from billhook.graph.capture import capture_program
from billhook.graph.memory import Memory


class Views(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        made = x + 1
        half, _ = made.view(2, 4).chunk(2, 1)
        changed = half.relu_()
        return changed * 2, made * 3


def nodes(module: nn.Module, x: Tensor) -> tuple[fx.Graph, dict[str, fx.Node]]:
    graph = capture_program(module, ((x,), {})).graph
    return graph, {n.name: n for n in graph.nodes}


def test_a_view_of_a_part_is_the_same_memory() -> None:
    graph, named = nodes(Views(), torch.ones(8))
    memory = Memory(graph)
    change = named["relu_"]
    assert memory.changes(change)
    assert not memory.changes(named["add"])
    assert memory.changed_after(named["add"], named["add"]) == [change]
    assert memory.changed_after(change, named["add"]) == []
    assert memory.changed_after(named["add"], named["mul"]) == []


def test_later_readers_are_those_of_the_whole_memory_but_not_those_of_the_result() -> None:
    graph, named = nodes(Views(), torch.ones(8))
    assert Memory(graph).later_users(named["relu_"]) == {named["mul_1"]}


def test_dropout_may_return_its_input() -> None:
    graph, named = nodes(nn.Sequential(nn.Tanh(), nn.Dropout(), nn.ReLU(inplace=True)).eval(), torch.ones(8))
    assert Memory(graph).changed_after(named["tanh"], named["tanh"]) == [named["relu_"]]
