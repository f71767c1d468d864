"""Random networks: blocks in a row under a random head, and what is wrong with a pruned one."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from billhook.errors import BillhookError
from billhook.graph import Graph, Plan, apply, capture, make_plan, verify
from tests.oracle import EVERYTHING, compare, random_plan, randomize
from tests.property.blocks import ACTIVATIONS, BLOCKS, NORMS

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Part:
    """One block: its kind and what it is made with."""

    kind: str
    width: int
    norm: str
    activation: str
    choice: int


@dataclass(frozen=True)
class Description:
    """A network as data, short enough to read in a failure.

    Attributes:
        stem: Channels of the first convolution.
        parts: The blocks.
        head: "mean", "flatten" or "dense" (every pixel).
        mixing: As in `capture`.
        seed: Of weights and plan.
    """

    stem: int
    parts: tuple[Part, ...]
    head: str
    mixing: Literal["freeze", "allow"]
    seed: int


class Network(nn.Module):
    """The network that a description describes."""

    def __init__(self, description: Description) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, description.stem, 3, padding=1)
        blocks: list[nn.Module] = []
        width = description.stem
        for part in description.parts:
            block = BLOCKS[part.kind](width, part.width, part.norm, part.activation, part.choice)
            width = block.after
            blocks.append(block)
        self.blocks = nn.ModuleList(blocks)
        self.kind = description.head
        if self.kind == "dense":
            self.dense = nn.Conv2d(width, 4, 1)
        else:
            self.hidden = nn.Linear(width * (16 if self.kind == "flatten" else 1), 10)
            self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for block in self.blocks:
            x = block(x)
        if self.kind == "dense":
            return self.dense(x)
        x = x.mean((2, 3)) if self.kind == "mean" else nn.functional.avg_pool2d(x, 2).flatten(1)
        return self.head(self.hidden(x).relu())


PARTS = st.builds(
    Part,
    kind=st.sampled_from(sorted(BLOCKS)),
    width=st.sampled_from([8, 12, 16]),
    norm=st.sampled_from(sorted(NORMS)),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    choice=st.integers(0, 3),
)


def _fits(description: Description) -> bool:
    """Return True if every width is even enough for shuffles, groups and heads."""
    width = description.stem
    for part in description.parts:
        if width % 4 or width < 8:
            return False
        width = BLOCKS[part.kind](width, part.width, part.norm, part.activation, part.choice).after
    return True


def _descriptions(parts: st.SearchStrategy[list[Part]]) -> st.SearchStrategy[Description]:
    return st.builds(
        Description,
        stem=st.sampled_from([8, 12, 16]),
        parts=parts.map(tuple),
        head=st.sampled_from(["mean", "flatten", "dense"]),
        mixing=st.sampled_from(["freeze", "freeze", "allow"]),
        seed=st.integers(0, 1000),
    ).filter(_fits)


DESCRIPTIONS = _descriptions(st.lists(PARTS, min_size=1, max_size=4))
# With at least one block that adds a branch.
ADDING = PARTS.filter(
    lambda p: p.kind in ("Residual", "ChannelsLast") or (p.kind, p.choice) == ("Attention", 1)
)
RESIDUAL = _descriptions(
    st.tuples(st.lists(PARTS, max_size=2), ADDING, st.lists(PARTS, max_size=2)).map(
        lambda p: [*p[0], p[1], *p[2]]
    )
)


def problem_of(description: Description, *, branches: bool = False) -> str | None:
    """Prune half of the network; return what is wrong, None if nothing is.

    Args:
        description: The network.
        branches: Whether some of its residual branches leave whole.
    """
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(description.seed))
    model = randomize(Network(description).eval(), description.seed, x)
    try:
        graph = capture(model, x, mixing=description.mixing)
        plan = random_plan(graph, seed=description.seed)
        if branches:
            plan = without_branches(graph, plan, description.seed)
        small = apply(model, plan)
        check = verify(model, plan, x, small=small)
    except BillhookError as e:
        return f"{type(e).__name__}: {e}"
    if not check.agrees:
        return f"silence and removal differ by {check.max_rel_error:.2g}, first in {check.first_difference}"
    told, has = graph.costs.cost(plan).params, sum(p.numel() for p in small.parameters())
    if told != has:
        return f"the cost formula says {told} parameters, the network has {has}"
    if (
        check.exact and not branches
    ):  # zeroed consumers are not zero branches: what follows them may have a bias
        distance = compare(model, graph.groups, plan, small, x)
        if distance.error > TOLERANCE:  # channels that a product consumes: no weight reads them
            distance = compare(model, graph.groups, plan, small, x, EVERYTHING)
        if distance.error > TOLERANCE:
            return f"zeroed weights and removal differ by {distance.error:.2g}"
        if plan.removed and distance.effect < 1e-4:
            return "the removed channels do not matter to the output"
    elif not check.exact and description.mixing == "freeze":
        return "not exact though channels that mix are held"
    return None


def without_branches(graph: Graph, plan: Plan, seed: int) -> Plan:
    """Return `plan` without a random part of the branches, at least one of them."""
    some = [b for b in graph.branches if random.Random(f"{seed} {b.id}").random() < 0.5]
    gone = {g: np.zeros(graph.groups[g].size) for b in some or graph.branches[:1] for g in b.own}
    return make_plan(graph, {**plan.keep, **gone})


def mismatches(count: int) -> list[str]:
    """Return the problems found in `count` random networks."""
    found: list[str] = []
    tried = 0

    @settings(
        max_examples=count, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(DESCRIPTIONS)
    def attempt(description: Description) -> None:
        nonlocal tried
        tried += 1
        problem = problem_of(description)
        if problem is not None:
            found.append(f"{description}: {problem}")

    attempt()
    if tried < count:
        found.append(f"only {tried} of {count} networks were tried")
    return found
