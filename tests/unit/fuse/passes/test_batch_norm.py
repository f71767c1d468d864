"""Batch norms, scales and biases vanish wherever that is exact, and stay with a reason where it is not."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from billhook.fuse.fuse import run_passes
from billhook.fuse.options import Fusion
from billhook.graph.fusions import Site, as_layers, passes, rewrite_at, tidy
from billhook.graph.inputs import as_call
from tests.small_net import net
from tests.unit.fuse.passes.folding import Folded, fold

X1, X2, X3 = torch.randn(2, 4, 9), torch.randn(2, 4, 8, 7), torch.randn(2, 4, 5, 5, 4)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
Run = Callable[[Any, Tensor], Tensor]


def folded(run: Run, x: Tensor = X2, **layers: Any) -> Folded:
    return fold(net(run, **layers), x, "batch_norm")


LAYERS: dict[str, tuple[nn.Module, nn.Module, Tensor]] = {
    "without bias": (nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), X2),
    "stride, padding and dilation": (nn.Conv2d(4, 6, 3, 2, 2, 2), nn.BatchNorm2d(6), X2),
    "groups": (nn.Conv2d(4, 6, 3, padding="same", groups=2), nn.BatchNorm2d(6), X2),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, bias=False), nn.BatchNorm2d(8), X2),
    "1d": (nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), X1),
    "3d": (nn.Conv3d(4, 6, 2), nn.BatchNorm3d(6), X3),
    "linear": (nn.Linear(4, 6), nn.BatchNorm1d(6), X1[..., 0]),
    "norm without affine": (nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, affine=False), X2),
    "norm behind norm": (nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4), X2),
}


@pytest.mark.parametrize("case", LAYERS)
def test_a_norm_goes_into_the_layer_in_front(case: str) -> None:
    layer, norm, x = LAYERS[case]
    made = folded(lambda m, x: m.norm(m.layer(x)).relu(), x, layer=layer, norm=norm)
    assert made.held == [("batch_norm", "norm")]
    assert made.count(*NORMS) == isinstance(layer, NORMS)
    assert not set(made.refused) & {"norm"}


BEHIND: dict[str, tuple[nn.Module, Tensor]] = {
    "conv without padding": (nn.Conv2d(4, 6, 3, 2), X2),
    "1×1": (nn.Conv2d(4, 6, 1, bias=False), X2),
    "groups": (nn.Conv2d(4, 6, 3, groups=2), X2),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, bias=False), X2),
    "1d": (nn.Conv1d(4, 6, 3, padding="valid"), X1),
    "3d": (nn.Conv3d(4, 6, 2), X3),
    "linear": (nn.Linear(4, 6, bias=False), X1[..., 0]),
}


@pytest.mark.parametrize("case", BEHIND)
def test_a_norm_goes_into_the_layer_behind(case: str) -> None:
    layer, x = BEHIND[case]
    norm = NORMS[max(x.dim() - 3, 0)](4)
    made = folded(lambda m, x: m.layer(m.norm(x.relu())), x, layer=layer, norm=norm)
    assert made.held == [("batch_norm", "norm")]
    assert made.count(*NORMS) == 0


def test_a_norm_goes_into_all_layers_that_read_it() -> None:
    layers = dict(norm=nn.BatchNorm2d(4), a=nn.Conv2d(4, 5, 3), b=nn.Conv2d(4, 2, 1))
    run: Run = lambda m, x: m.a(y := m.norm(x)).mean((2, 3)) @ m.b(y).mean((2, 3)).mean(0).repeat(5, 1)  # noqa: E731
    assert folded(run, **layers).count(*NORMS) == 0


def test_layers_and_norms_fold_one_after_the_other() -> None:
    made = folded(
        lambda m, x: m.n3(m.b(m.n2(m.n1(m.a(x)) * 3 - 1))),
        a=nn.Conv2d(4, 5, 3),
        n1=nn.BatchNorm2d(5),
        n2=nn.BatchNorm2d(5),
        b=nn.Conv2d(5, 2, 3, padding=1),
        n3=nn.BatchNorm2d(2),
    )
    assert len(made.held) == 5
    assert [type(m) for m in made.network.modules()].count(nn.Conv2d) == 2
    assert len([n for n in made.network.graph.nodes if n.op == "call_function"]) == 0


STAYS: dict[str, tuple[Run, str]] = {
    "padding follows": (lambda m, x: m.padded(m.norm(x.relu())), "zero padding follows"),
    "activation follows": (lambda m, x: m.conv(m.norm(x).relu()), "an activation follows"),
    "sum follows": (lambda m, x: m.norm(x.relu()) + x, "an addition follows"),
    "pool follows": (lambda m, x: m.conv(max_pool2d(m.norm(x), 2)), "max_pool2d follows"),
    "end of the network": (lambda m, x: m.norm(x.relu()), "its result leaves the network"),
    "one reader pads": (
        lambda m, x: m.conv(y := m.norm(x))[:, :, :1, :1] + m.padded(y),
        "zero padding follows",
    ),
    "conv with two readers": (lambda m, x: m.norm(y := m.conv(x)).relu() + y, "conv is read by others, too"),
    "conv called twice": (lambda m, x: m.norm(m.conv(m.conv(x))).relu(), "conv is called more than once"),
    "conv behind called twice": (
        lambda m, x: m.conv(m.conv(m.norm(x.relu()))),
        "conv is called more than once",
    ),
    "norm called twice": (lambda m, x: m.norm(m.conv(m.norm(x))).relu(), "norm is called more than once"),
    "sum with another value": (
        lambda m, x: m.norm(m.conv(x) + x[:, :, 1:, 1:]).relu(),
        "it reads no layer's output",
    ),
    "beside another value": (
        lambda m, x: m.wide(torch.cat((m.conv(x), x[:, :, 1:, 1:].relu()), 1)).relu(),
        "it reads no layer's output",
    ),
    "beside itself": (
        lambda m, x: m.wide(torch.cat((y := m.padded(x), y), 1)).relu(),
        "it reads no layer's output",
    ),
    "doubled": (lambda m, x: m.norm((y := m.conv(x)) + y).relu(), "it reads no layer's output"),
    "sum with two readers": (
        lambda m, x: m.norm(y := m.conv(x) + m.other(x)).relu() + y,
        "what it reads is read by others, too",
    ),
}


@pytest.mark.parametrize("case", STAYS)
def test_a_norm_stays_with_a_reason(case: str) -> None:
    run, why = STAYS[case]
    layers = dict(conv=nn.Conv2d(4, 4, 2), other=nn.Conv2d(4, 4, 2), padded=nn.Conv2d(4, 4, 1, padding=1))
    made = folded(run, norm=nn.BatchNorm2d(4), wide=nn.BatchNorm2d(8), **layers)
    assert not made.held
    assert all(why in reason for reason in made.refused.values()), made.refused
    assert made.refused


def test_each_layer_before_a_sum_takes_its_part() -> None:
    made = folded(
        lambda m, x: m.norm(m.a(x) + (m.b(x.relu()) + m.inner(m.c(x)))).relu(),
        a=nn.Conv2d(4, 5, 1),
        b=nn.Conv2d(4, 5, 3, padding=1, bias=False),
        c=nn.Conv2d(4, 5, 1),
        inner=nn.BatchNorm2d(5),
        norm=nn.BatchNorm2d(5),
    )
    assert made.held == [("batch_norm", "inner"), ("batch_norm", "norm")]
    assert made.network.get_submodule("b").bias is None  # the shift is added once


def test_each_layer_before_a_concatenation_takes_its_part() -> None:
    made = folded(
        lambda m, x: m.norm(torch.cat((m.a(x), m.b(x.relu()) + m.c(x), m.keep(x)), 1)).relu(),
        a=nn.Conv2d(4, 2, 1),
        b=nn.Conv2d(4, 3, 1),
        c=nn.Conv2d(4, 3, 1),
        keep=nn.BatchNorm2d(4),
        norm=nn.BatchNorm2d(9),
    )
    assert made.held == [("batch_norm", "norm")]
    assert made.count(*NORMS) == 1


C, ONE = torch.ones(6, 1, 1), torch.ones(())
PER_CHANNEL: dict[str, Run] = {
    "product with a parameter": lambda m, x: m.scale * m.conv(x),
    "sum with a parameter": lambda m, x: m.shift + m.conv(x),
    "difference": lambda m, x: torch.sub(m.conv(x), m.scale, alpha=2),
    "quotient": lambda m, x: m.conv(x) / m.scale,
    "number": lambda m, x: m.conv(x) * 0.5,
    "number of a buffer": lambda m, x: m.one * m.conv(x),
    "layer scale on tokens": lambda m, x: m.linear(x) * m.tokens,
}


@pytest.mark.parametrize("case", PER_CHANNEL)
def test_constants_per_channel_go_into_the_layer_in_front(case: str) -> None:
    layers = dict(
        scale=nn.Parameter(C), shift=nn.Parameter(C[None]), one=ONE, tokens=nn.Parameter(torch.ones(5))
    )
    run = PER_CHANNEL[case]
    made = folded(lambda m, x: run(m, x).relu(), conv=nn.Conv2d(4, 6, 3), linear=nn.Linear(7, 5), **layers)
    assert len(made.held) == 1
    assert [n.name for n in made.network.graph.nodes if n.op == "call_function"] == ["relu"]


NOT_PER_CHANNEL: dict[str, Run] = {
    "per pixel": lambda m, x: m.conv(x) * m.pixels,
    "per column": lambda m, x: m.conv(x) * m.row,
    "number divided by it": lambda m, x: 2 / m.conv(x).exp(),
    "wider than the channels": lambda m, x: m.one_channel(x) * m.scale,
    "rounded": lambda m, x: torch.div(m.conv(x), 2, rounding_mode="floor"),
    "another type": lambda m, x: (m.conv(x) * m.float64).float(),
}


@pytest.mark.parametrize("case", NOT_PER_CHANNEL)
def test_other_constants_stay(case: str) -> None:
    made = folded(
        NOT_PER_CHANNEL[case],
        conv=nn.Conv2d(4, 6, 3, padding=1),
        one_channel=nn.Conv2d(4, 1, 3),
        scale=nn.Parameter(C),
        pixels=nn.Parameter(torch.ones(6, 8, 7)),
        row=nn.Parameter(torch.ones(7)),
        float64=C.double(),
    )
    assert not made.held


def test_a_scale_alone_may_stand_before_padding() -> None:
    layers = dict(scale=nn.Parameter(torch.ones(4, 1, 1)), conv=nn.Conv2d(4, 6, 3, padding=1))
    assert folded(lambda m, x: m.conv(x.relu() * m.scale), **layers).held == [("batch_norm", "mul")]


def test_a_norm_over_tokens_is_no_scale_of_a_linear_layer() -> None:
    made = folded(lambda m, x: m.norm(m.linear(x)).relu(), X1, linear=nn.Linear(9, 4), norm=nn.BatchNorm1d(4))
    assert "not the channels of linear" in made.refused["norm"]


def test_a_norm_without_running_statistics_is_no_constant() -> None:
    norm = nn.BatchNorm2d(6, track_running_stats=False)
    model, x = net(lambda m, x: m.norm(m.conv(x)), conv=nn.Conv2d(4, 6, 3), norm=norm), X2
    network = as_layers(model, as_call(x))
    held, refused = run_passes(network, as_call(x), Fusion(operators=("batch_norm",)), "fold")
    assert not held
    assert "normalises by its batch" in refused[0][1].why


def test_a_network_in_training_mode_folds_its_running_statistics() -> None:
    model = net(lambda m, x: m.norm(m.conv(x)), conv=nn.Conv2d(4, 6, 3), norm=nn.BatchNorm2d(6)).train()
    assert fold(model, X2, "batch_norm").count(*NORMS) == 0


def test_frozen_weights_stay_frozen_and_halves_stay_halves() -> None:
    model = net(
        lambda m, x: m.n2(m.b(m.n1(m.a(x)))),
        a=nn.Conv2d(4, 6, 3, bias=False), n1=nn.BatchNorm2d(6), b=nn.Conv2d(6, 6, 3), n2=nn.BatchNorm2d(6),
    ).to(torch.bfloat16)  # fmt: skip
    model.a.weight.requires_grad_(False)
    x = X2.to(torch.bfloat16)
    network, batch_norm = as_layers(model, as_call(x)), passes.get("batch_norm")
    while sites := [s for s in batch_norm.find(network, {}) if isinstance(s, Site)]:
        rewrite_at(network, "batch_norm", sites[0])
    tidy(network)
    assert {n: (p.dtype, p.requires_grad) for n, p in network.named_parameters()} == {
        "a.weight": (torch.bfloat16, False),
        "a.bias": (torch.bfloat16, False),
        "b.weight": (torch.bfloat16, True),
        "b.bias": (torch.bfloat16, True),
    }
    torch.testing.assert_close(network(x), model(x), rtol=0.05, atol=0.05)


NETWORKS: dict[str, Callable[[Any], nn.Module]] = {
    "resnet": lambda models: models.resnet18(num_classes=10),
    "mobilenet": lambda models: models.mobilenet_v2(num_classes=10),
    "densenet": lambda models: models.DenseNet(8, (2, 2), 8, num_classes=10),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_left_of_the_norms_of_known_networks(name: str, torchvision: ModuleType) -> None:
    made = fold(NETWORKS[name](torchvision.models), torch.randn(2, 3, 32, 32), "batch_norm")
    # Of DenseNet those in front of every dense layer, of every transition, and at the end.
    left = {"densenet": {"denselayer1.norm1", "denselayer2.norm1", "transition1.norm", "norm5"}}.get(
        name, set()
    )
    assert made.count(*NORMS) == (6 if left else 0) == len(made.refused)
    assert all(at.endswith(tuple(left)) for at in made.refused)
    assert all("an activation follows" in why for why in made.refused.values())
    before, after = made.macs()
    assert before == after
