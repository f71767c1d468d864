"""A graph without branches: what is run in place of the operators that change the sum."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from billhook.graph import Graph, capture
from billhook.graph.without import Without


class Sums(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stem, self.out = nn.Linear(3, 8), nn.Linear(8, 2)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.down(self.up(x).relu())
        if self.kind == "plain":
            return self.out((x + y).relu())
        if self.kind == "in place":
            y += x
            return self.out(y.relu_())
        if self.kind == "into the operand":
            x += y
            return self.out(x.relu_())
        total = x + y
        x.relu_()
        return self.out(total - x)


def made(kind: str) -> tuple[Without, Graph]:
    graph = capture(Sums(kind).eval(), torch.ones(2, 3))
    return Without(graph.program.graph, graph.branches, frozenset(graph.program.graph.nodes)), graph


def left(kind: str) -> list[str]:
    """Return the operators that stand for the sum: none if it is the operand itself."""
    without, graph = made(kind)
    branch = graph.branches[0]
    into = torch.fx.Graph()
    copies = {branch.other: into.placeholder("x")}
    without.sum(into, branch.add, copies)
    return [str(n.target) for n in into.nodes if n.op == "call_function"]


def functional(kind: str) -> dict[str, str]:
    return {n.name: str(target) for n, target in made(kind)[0].functional.items()}


def test_the_sum_is_the_other_operand() -> None:
    without, graph = made("plain")
    branch = graph.branches[0]
    assert without.left == {branch.add: branch.other}
    assert without.nodes == branch.nodes
    assert left("plain") == []
    assert functional("plain") == {}


def test_a_sum_that_is_changed_in_place_is_made_anew_by_who_changes_it() -> None:
    assert functional("in place") == {"relu_": "aten.relu.default"}
    assert left("in place") == []


def test_what_was_one_tensor_before_is_one_tensor_after() -> None:
    assert functional("into the operand") == {}
    assert left("into the operand") == []


def test_an_operand_that_is_changed_later_is_copied() -> None:
    assert functional("operand changed") == {}
    assert left("operand changed") == ["aten.clone.default"]


def test_who_cannot_be_replaced_makes_a_copy_necessary() -> None:
    _, graph = made("in place")
    within = frozenset(n for n in graph.program.graph.nodes if n.name != "relu_")
    assert Without(graph.program.graph, graph.branches, within).functional == {}
