"""Fused networks, and plans that take whatever may leave, for tests of fusion."""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from billhook.errors import PlanError
from billhook.fuse import Fused, Fusion, fuse
from billhook.graph import Graph, Plan, capture, make_plan
from billhook.graph.layers import LayeredNetwork
from billhook.graph.plan import Keep
from billhook.graph.rules._base import bind
from tests.residual import residual


def fused(name: str, **options: Any) -> tuple[LayeredNetwork, Tensor]:
    """Return a network of `tests.residual` with its shortcuts as copies, in eval mode, and two images."""
    model, x = residual(name)
    return fuse(model, x, Fusion(**options)).network, x


@cache
def fused_graph(name: str) -> Graph:
    """Return the graph of a fused network; it holds no weights, so all tests may share it."""
    return capture(*fused(name))


def random_plan(graph: Graph, seed: int = 0, share: float = 0.6, empty: float = 0.0) -> Plan:
    """Return a plan that keeps a random part of every group.

    Branches and copies are emptied with probability `empty`, but never both of one block.
    """
    generator = np.random.default_rng(seed)
    keep: dict[str, Keep] = {}
    for group in graph.groups.prunable:
        keep[group.id] = generator.random(group.size) < share
        keep[group.id][generator.integers(group.size)] = True
    plan = make_plan(graph, keep)
    ends = sorted({b.own[0] for b in graph.branches} | graph.copies)
    for name in generator.permutation(ends):
        if generator.random() < empty:
            with contextlib.suppress(PlanError):
                plan = make_plan(graph, {**plan.keep, name: np.zeros(len(keep[name]))})
    return plan


def operators(network: LayeredNetwork) -> list[str]:
    """Return what a network does, step by step: layers by type and operators by name."""
    return [
        type(network.get_submodule(str(n.target))).__name__ if n.op == "call_module" else bind(n).name
        for n in network.graph.nodes
        if n.op == "call_module" or (n.op == "call_function" and hasattr(n.target, "_schema"))
    ]


def distance(network: nn.Module, other: nn.Module, x: Tensor) -> float:
    """Return how far two networks are apart, relative to the largest output; their modes stay."""
    with torch.no_grad():
        a, b = network(x), other(x)
    assert a.shape == b.shape
    return float((a - b).abs().max() / a.abs().max().clamp_min(1e-12))


def made(model: nn.Module, x: Tensor, **options: Any) -> Fused:
    """Return `model` fused with these options."""
    return fuse(model, x, Fusion(**options))
