"""A layer that reads a concatenation is a sum of layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import billhook
from billhook.fuse.fuse import fuse
from billhook.fuse.options import Fusion
from billhook.graph import verify
from billhook.graph.fusions import fused
from tests.networks import build
from tests.small_net import net
from tests.unit.fuse.passes.widening import growth, places, reasons, widen

X = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
ONLY = {"keep_if": "always", "operators": ("concat",)}


def parts(m: Any, x: Tensor) -> Tensor:
    return torch.cat((m.a(x).relu(), x, m.b(x).sigmoid()), 1)


def three(run: Any, **layers: nn.Module) -> nn.Module:
    return net(run, a=nn.Conv2d(4, 3, 1), b=nn.Conv2d(4, 5, 1), **layers)


@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_becomes_one_per_part(bias: bool) -> None:
    model = three(lambda m, x: m.conv(parts(m, x)), conv=nn.Conv2d(12, 6, 3, 2, 1, bias=bias))
    made = widen(model, X, **ONLY)
    assert places(made, "concat") == ["conv"]
    layers = [made.network.get_submodule(n) for n in ("conv", "conv_2", "conv_3")]
    assert [layer.in_channels for layer in layers] == [3, 4, 5]
    assert [layer.bias is not None for layer in layers] == [bias, False, False]
    assert not any("cat" in str(n.target) for n in made.network.graph.nodes)
    assert growth(made, model, X) == 1


def test_so_does_a_linear_layer_that_reads_features() -> None:
    model = net(
        lambda m, x: m.out(torch.cat((m.a(x), m.b(x).relu()), -1)),
        a=nn.Linear(8, 3),
        b=nn.Linear(8, 4),
        out=nn.Linear(7, 2),
    )
    assert places(widen(model, X, **ONLY), "concat") == ["out"]
    model.run = lambda m, x: m.a(torch.cat((x, x.relu()), 1))
    assert not widen(model, X, **ONLY).held, "rows side by side, not features"


def test_it_is_only_done_if_asked() -> None:
    model = three(lambda m, x: m.conv(parts(m, x)), conv=nn.Conv2d(12, 6, 3))
    assert not widen(model, X).held
    assert not widen(model, X, keep_if="always", add_form="concat").held


@pytest.mark.parametrize(
    ("run", "groups", "why"),
    [
        (lambda m, x: m.conv(parts(m, x)), 2, "grouped"),
        (
            lambda m, x: m.conv(m.conv(parts(m, x)).repeat(1, 2, 1, 1)) + m.conv(parts(m, x)),
            1,
            "more than once",
        ),
        (lambda m, x: m.conv(y := parts(m, x)).mean() + y.mean(), 1, "read by others"),
    ],
)
def test_what_cannot_be_taken_apart_stays(run: Any, groups: int, why: str) -> None:
    made = widen(three(run, conv=nn.Conv2d(12, 6, 1, groups=groups)), X, **ONLY)
    assert not made.held
    assert why in reasons(made)["conv"]


@pytest.mark.parametrize(("name", "held"), [("chunk_concat", 1), ("concat", 0), ("shuffle", 0)])
def test_networks_of_other_tests(name: str, held: int) -> None:
    model, inputs = build(name)
    assert len(widen(model, inputs, **ONLY).held) == held


def test_a_plan_repeats_the_rewrite_on_the_original() -> None:
    model = three(
        lambda m, x: m.out(m.conv(parts(m, x)).relu().mean((2, 3))),
        conv=nn.Conv2d(12, 8, 3),
        out=nn.Linear(8, 3),
    )
    network = fuse(model, X, Fusion(**ONLY)).network.eval()
    plan = billhook.prune(network, X, budget=billhook.Budget(macs=0.6))
    assert fused(model, plan).code == network.code
    assert verify(model, plan, X).exact
