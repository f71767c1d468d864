"""Sections: modules that can be run from their part of the graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from billhook.graph import apply, capture, make_plan, verify
from billhook.graph.section import sections
from tests.oracle import randomize
from tests.residual import residual


def sections_of(model: nn.Module, x: Tensor, *branches: int) -> list[str]:
    graph = capture(model, x)
    empty = {graph.branches[b].own[0]: 0 for b in branches}
    plan = make_plan(graph, {name: np.zeros(graph.groups[name].size) for name in empty})
    assert verify(model, plan, x, small=apply(model, plan)).exact
    return [s.name for s in sections(graph.program, graph.kept(plan))]


class Block(nn.Module):
    """A branch in a module that takes one tensor, or two."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: Tensor, y: Tensor | None = None, *, scale: float = 1.0) -> Tensor:
        return (x if y is None else y) + self.down(self.up(x).relu()) * scale


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.other = Block(), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x, self.other(x))


class Network(nn.Module):
    def __init__(self, part: nn.Module, times: int = 1) -> None:
        super().__init__()
        self.stem, self.part, self.out = nn.Linear(3, 8), part, nn.Linear(8, 2)
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(self.times):
            x = self.part(x)
        return self.out(x)


def test_the_innermost_module_that_takes_one_tensor() -> None:
    x = torch.randn(2, 3)
    assert sections_of(randomize(Network(Block()).eval()), x, 0) == ["part"]
    assert sections_of(randomize(Network(Outer()).eval()), x, 0) == ["part"]  # its block takes two


def test_a_module_that_is_called_twice_shares_its_branch() -> None:
    assert capture(Network(Block(), times=2).eval(), torch.randn(2, 3)).branches == ()


def test_a_block_with_two_branches_is_one_section() -> None:
    model, x = residual("transformer")
    assert sections_of(model, x, 0, 1, 3) == ["layers.0", "layers.1"]


def test_sections_within_sections_are_not_listed() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.up, self.down = Block(), nn.Linear(8, 12), nn.Linear(12, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.inner(x)
            return x + self.down(self.up(x).relu())

    model = randomize(Network(Both()).eval())
    assert sections_of(model, torch.randn(2, 3), 0) == ["part.inner"]
    assert sections_of(model, torch.randn(2, 3), 0, 1) == ["part"]


def test_a_branch_outside_of_modules_has_no_section() -> None:
    model, x = residual("functions")
    assert sections_of(model, x, 0) == []


def test_a_module_that_is_reached_by_two_names_is_not_replaced() -> None:
    model = randomize(Network(Block()).eval())
    model.again = model.part
    x = torch.randn(2, 3)
    graph = capture(model, x)
    plan = make_plan(graph, {"part.up": np.zeros(12)})
    small = apply(model, plan)
    assert verify(model, plan, x, small=small).exact
    assert sum(p.numel() for p in small.parameters()) == graph.costs.cost(plan).params
