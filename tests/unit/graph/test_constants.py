"""Sizes written into operators become those of the smaller network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook.graph import capture, make_plan
from billhook.graph.constants import Kept, rewrite, symbolic
from billhook.graph.rules._base import bind
from tests.small_net import net


def rewritten(run: Callable[..., Any], left: int, name: str) -> tuple[str, dict[str, Any]] | None:
    """Return how operator `name` changes when units 0–2 of the 6 that layer `a` makes stay."""
    model = net(lambda m, x: m.b(run(m.a(x))), a=nn.Linear(3, 6), b=nn.Linear(left, 2))
    graph = capture(model, torch.zeros(4, 3))
    plan = make_plan(graph, {g.id: np.arange(g.size) < (g.size + 1) // 2 for g in graph.groups.prunable})
    kept = Kept(graph.flow, graph.partition, graph.keep_list(plan))
    node = next(n for n in graph.program.graph.nodes if n.op == "call_function" and bind(n).name == name)
    changed = rewrite(bind(node), kept, symbolic)
    if changed is None:
        return None
    target, arguments = changed
    return str(target), {k: v for k, v in arguments.items() if not hasattr(v, "op")}


def halves(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return a * b


CASES: dict[str, tuple[Callable[..., Any], int, str, tuple[str, dict[str, Any]] | None]] = {
    "view": (lambda x: x.view(4, 6), 6, "view", ("aten.view.default", {"size": [4, 3]})),
    "a free size stays free": (lambda x: x.view(4, -1), 6, "view", ("aten.view.default", {"size": [4, -1]})),
    "chunk": (halves, 3, "chunk", ("aten.split_with_sizes.default", {"split_sizes": [2, 2], "dim": 1})),
    "slice": (lambda x: x[:, 2:5], 3, "slice", ("aten.slice.Tensor", {"start": 2, "end": 4})),
    "pad": (lambda x: nn.functional.pad(x, (1, 0)), 7, "pad", ("aten.pad.default", {"pad": [1, 0]})),
    "unflatten": (
        lambda x: x.unflatten(1, (6, 1))[..., 0], 6, "unflatten", ("aten.unflatten.int", {"sizes": [3, 1]})
    ),
    "repeat along another dimension": (
        lambda x: x.repeat(2, 1), 6, "repeat", ("aten.repeat.default", {"repeats": [2, 1]})
    ),
    "layer norm over pixels": (lambda x: x * 2, 6, "mul", None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_sizes_follow(name: str) -> None:
    run, left, operator, expected = CASES[name]
    assert rewritten(run, left, operator) == expected


def test_a_slice_with_steps_becomes_a_look_up() -> None:
    changed = rewritten(lambda x: x[:, ::2] + x[:, 1::2], 3, "slice")
    assert changed is not None
    assert changed[0] == "aten.index_select.default"
    assert changed[1]["index"].tolist() == [0, 2]


def test_masks_of_dimensions() -> None:
    model = net(lambda m, x: m.b(m.a(x).relu()), a=nn.Linear(3, 6), b=nn.Linear(6, 2))
    graph = capture(model, torch.zeros(4, 3))
    plan = make_plan(graph, {"a": np.arange(6) % 2 == 0})
    kept = Kept(graph.flow, graph.partition, graph.keep_list(plan))
    relu = next(n for n in graph.program.graph.nodes if "relu" in str(n.target))
    rows, columns = kept.dims(relu)
    assert rows is None
    assert columns is not None
    assert columns.tolist() == [True, False] * 3
    assert [m is None for m in kept.tensor("b.weight", 2)] == [True, False]
    assert [m is None for m in kept.tensor("b.bias", 1)] == [True]
