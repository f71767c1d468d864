"""Blocks without additions compute what blocks with additions do, and more of them can be pruned."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import billhook
from billhook import models
from billhook.fuse.fuse import fuse
from billhook.fuse.options import Fusion
from billhook.graph import apply, capture, make_plan, verify
from billhook.graph.alive import enliven_
from billhook.graph.fusions import fused
from billhook.train import FitConfig, fit
from tests.networks import build
from tests.residual import BasicBlock, Bottleneck, PreActivation, Stages
from tests.small_net import net
from tests.unit.fuse.passes.widening import additions, growth, places, reasons, widen

X = torch.randn(2, 3, 9, 10, generator=torch.Generator().manual_seed(0))
ONE = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("form", ["chain", "concat"])
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck, PreActivation])
def test_every_block_loses_its_addition(block: type[nn.Module], form: str) -> None:
    made = widen(Stages(block), X, add_form=form, copies="dense")
    assert places(made, "dense_shortcut") == ["layer1.0", "layer1.1", "layer2.0"]
    assert additions(made) == 0
    assert not reasons(made)


@pytest.mark.parametrize(
    ("name", "shortcut", "form"),
    [("resnet-20", "A", "chain"), ("resnet-8", "B", "chain"), ("resnet-8", "A", "concat")],
)
def test_a_network_for_small_images(name: str, shortcut: str, form: str) -> None:
    model = models.build(name, width=4, num_classes=5, shortcut=shortcut)
    made = widen(model, X, add_form=form, copies="dense")
    assert len(made.held) == (9 if name == "resnet-20" else 3)
    assert additions(made) == 0
    assert 1.3 < growth(made, model, X) < (2.0 if form == "chain" else 1.5)


@pytest.mark.parametrize(
    ("name", "form", "blocks"),
    [("resnet18", "concat", 8), ("resnet50", "chain", 7)],
)
def test_a_network_of_torchvision(torchvision: ModuleType, name: str, blocks: int, form: str) -> None:
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    # The last stages of ResNet-50 would take ten seconds: their copies are 2048 channels.
    include = ("*",) if name == "resnet18" else ("layer1.*", "layer2.*")
    model = getattr(torchvision.models, name)(weights=None)
    made = widen(model, x, add_form=form, copies="dense", include=include)
    assert len(made.held) == blocks
    assert additions(made) == (0 if name == "resnet18" else 9)


@pytest.mark.parametrize(
    ("block", "form", "factor"),
    [
        (BasicBlock, "chain", 2.0),
        (BasicBlock, "concat", 1.5),
        (Bottleneck, "chain", 15.588),
        (Bottleneck, "concat", 1.941),
    ],
)
def test_what_a_block_costs_before_it_is_pruned(block: type[nn.Module], form: str, factor: float) -> None:
    made = block(8, 8)
    if block is Bottleneck:  # a quarter of the width, as in the paper's 256-64-256
        made.conv1, made.bn1 = nn.Conv2d(8, 2, 1, bias=False), nn.BatchNorm2d(2)
        made.conv2, made.bn2 = nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2)
        made.conv3 = nn.Conv2d(2, 8, 1, bias=False)
    model, x = net(lambda m, x: m.block(x.relu()), block=made), torch.randn(1, 8, 6, 6)
    got = growth(widen(model, x, add_form=form, copies="dense"), model, x)
    assert got == pytest.approx(factor, abs=1e-3)


def test_symbolic_copies_and_groups_are_left_to_others() -> None:
    for options in ({}, {"add_form": "group"}, {"level": "none"}):
        made = widen(Stages(BasicBlock), X, **options)
        assert not places(made, "dense_shortcut")
    assert not widen(Stages(BasicBlock), X, add_form="group").held


def test_layers_keep_their_names_and_norms_are_folded() -> None:
    network = widen(Stages(BasicBlock), X, copies="dense").network
    names = {n for n, _ in network.layer1.named_modules() if "." in n}
    assert names == {"0.conv1", "0.conv2", "1.conv1", "1.conv2"}
    assert network.get_submodule("layer1.0.conv1").out_channels == 16
    assert network.get_submodule("layer1.0.conv2").in_channels == 16
    assert network.get_submodule("layer1.0.conv2").out_channels == 8


def test_negative_inputs_pass_through_slopes_that_are_no_weights() -> None:
    model = net(lambda m, x: m.block(m.bn(x)), bn=nn.BatchNorm2d(4), block=BasicBlock(4, 4))
    network = widen(model, ONE, copies="dense").network
    slopes = network.get_submodule("block.relu").weight
    assert slopes.tolist() == [0.0] * 4 + [1.0] * 4
    assert not slopes.requires_grad
    proved = net(lambda m, x: m.block(m.bn(x).relu()), bn=nn.BatchNorm2d(4), block=BasicBlock(4, 4))
    assert not [m for m in widen(proved, ONE, copies="dense").network.modules() if isinstance(m, nn.PReLU)]


def chain(x: Tensor, first: nn.Module, second: nn.Module, activation: object) -> Tensor:
    return second(activation(first(x))) + x  # type: ignore[operator]


@pytest.mark.parametrize(
    ("before", "activation", "why"),
    [
        (F.relu, F.relu6, "'relu6' would clip copies above 6"),
        (torch.sigmoid, F.relu6, None),
        (F.relu6, F.relu6, None),
        (torch.neg, F.relu6, "'relu6' would change negative copies"),
        (torch.neg, F.relu, None),
        (F.relu, F.leaky_relu, None),
        (torch.neg, F.leaky_relu, "'leaky_relu' would change negative copies"),
        (F.relu, F.silu, "'silu' in the branch changes every value, copies too"),
        (F.hardtanh, F.hardtanh, None),
    ],
)
def test_copies_pass_an_activation_unchanged_or_stay(
    before: object, activation: object, why: str | None
) -> None:
    model = net(
        lambda m, x: chain(before(x), m.a, m.b, activation),  # type: ignore[operator]
        a=nn.Conv2d(4, 6, 3, padding=1),
        b=nn.Conv2d(6, 4, 3, padding=1),
    )
    made = widen(model, 8 * ONE, copies="dense")
    assert additions(made) == (why is not None)
    if why is not None:
        assert why in reasons(made)["b"]
    assert additions(widen(model, 8 * ONE, add_form="concat")) == 0


def test_a_depthwise_layer_passes_copies_on_one_by_one() -> None:
    model = net(
        lambda m, x: m.c(m.b(m.a(x.relu()).relu()).relu()) + x.relu()[:, :, ::2, ::2],
        a=nn.Conv2d(4, 6, 1),
        b=nn.Conv2d(6, 6, 5, 2, 2, groups=6),
        c=nn.Conv2d(6, 4, 1),
    )
    made = widen(model, ONE, copies="dense")
    assert additions(made) == 1, "two calls of relu are two values"
    model.run = lambda m, x: m.c(m.b(m.a(x := x.relu()).relu()).relu()) + x[:, :, ::2, ::2]
    network = widen(model, ONE, copies="dense").network
    assert network.get_submodule("b").groups == 10
    assert network.get_submodule("b").weight.shape == (10, 1, 5, 5)


@pytest.mark.parametrize(
    ("run", "layers", "why"),
    [
        (lambda m, x: m.b(m.a(x).relu()) + x, {"a": nn.Conv2d(4, 4, 3, 1, 1, groups=2)}, "a is grouped"),
        (lambda m, x: m.b(m.a(x).relu()) + x, {"b": nn.Conv2d(4, 4, 3, 1, 1, groups=4)}, "b is grouped"),
        (lambda m, x: m.a(m.a(x).relu()) + x, {}, "a is called more than once"),
        (lambda m, x: (y := m.b(m.a(x).relu())) + x + y.mean(), {}, "read by others"),
        (lambda m, x: m.b(y := m.a(x).relu()) + x + y.mean(), {}, "read by others"),
        (lambda m, x: m.b((y := m.a(x)).relu()) + x + y.mean(), {}, "read by others"),
        (lambda m, x: m.b(m.drop(m.a(x).relu())) + x, {"drop": nn.Dropout()}, "drop"),
        (lambda m, x: m.b(m.a(x).relu() * m.a(x).sigmoid()) + x, {}, "'mul' in the branch"),
        (
            lambda m, x: m.b(m.a(x).relu()) + x,
            {"a": nn.Conv2d(4, 4, 4, padding=1), "b": nn.Conv2d(4, 4, 2, padding=1)},
            "a does not read every n-th pixel",
        ),
        (
            lambda m, x: m.b(m.a(x).relu()) + m.p(x),
            {"a": nn.Conv2d(4, 4, 3, 1, 1), "b": nn.Conv2d(4, 4, 3, 2, 1), "p": nn.Conv2d(4, 4, 1, 2, 0)},
            None,
        ),
    ],
)
def test_what_is_not_a_plain_chain_stays(run: object, layers: dict[str, nn.Module], why: str | None) -> None:
    usual = {"a": nn.Conv2d(4, 4, 3, padding=1), "b": nn.Conv2d(4, 4, 3, padding=1)}
    model = net(lambda m, x: run(m, x.relu()), **(usual | layers))  # type: ignore[operator]
    made = widen(model, ONE, copies="dense")
    if why is None:
        assert places(made, "dense_shortcut")
    else:
        assert not places(made, "dense_shortcut")
        assert any(why in text for text in reasons(made).values()), reasons(made)


@pytest.mark.parametrize("form", ["chain", "concat"])
@pytest.mark.parametrize(
    ("shortcut", "held"),
    [
        (lambda m, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 3)), True),
        (lambda m, x: F.pad(x, (0, 0, 0, 0, 0, 4))[:, :, ::2, ::2], False),
        (lambda m, x: F.pad(x[:, :, 1::2, ::2], (0, 0, 0, 0, 1, 3)), False),
        (lambda m, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 3), value=1.0), False),
        (lambda m, x: m.norm(m.point(x)), True),
        (lambda m, x: m.wide(x), False),
        (lambda m, x: m.point(F.avg_pool2d(x, 1)), False),
    ],
)
def test_what_a_shortcut_may_be(shortcut: object, held: bool, form: str) -> None:
    model = net(
        lambda m, x: m.b(m.a(x := x.relu()).relu()) + shortcut(m, x),  # type: ignore[operator]
        a=nn.Conv2d(4, 6, 3, 2, 1),
        b=nn.Conv2d(6, 8, 3, 1, 1),
        point=nn.Conv2d(4, 8, 1, 2),
        norm=nn.BatchNorm2d(8),
        wide=nn.Conv2d(4, 8, 3, 2, 1),
    )
    x = torch.randn(2, 4, 8, 9)
    assert bool(widen(model, x, add_form=form, copies="dense").held) == held


@pytest.mark.parametrize("form", ["chain", "concat"])
def test_signals_and_volumes(form: str) -> None:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        return m.b(m.a(m.norm(x).relu()).relu()) + x  # type: ignore[no-any-return, operator]

    for i, x in ((1, torch.randn(2, 4, 9)), (3, torch.randn(1, 4, 5, 6, 5))):
        convolution, norm = getattr(nn, f"Conv{i}d"), getattr(nn, f"BatchNorm{i}d")
        model = net(run, norm=norm(4), a=convolution(4, 3, 3, padding=1), b=convolution(3, 4, 1))
        assert widen(model, x, add_form=form, copies="dense").held


def test_nothing_is_rewritten_while_an_operator_works_in_place() -> None:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = x.relu()
        y = m.b(m.a(x).relu()) + x  # type: ignore[operator]
        y[:, :2].sub_(1)
        return y

    model = net(run, a=nn.Conv2d(4, 4, 3, padding=1), b=nn.Conv2d(4, 4, 3, padding=1))
    for form in ("chain", "concat"):
        made = widen(model, ONE, add_form=form, copies="dense")
        assert not made.held
        assert "works in place" in reasons(made)["b"]


def test_frozen_layers_stay_frozen_and_a_second_time_changes_nothing() -> None:
    model = Stages(PreActivation)
    model.layer1.requires_grad_(False)
    network = fuse(model.eval(), X, Fusion(copies="dense")).network
    frozen = {n for n, p in network.named_parameters() if not p.requires_grad}
    assert {n for n, _ in network.named_parameters() if n.startswith("layer1.")} <= frozen
    assert "layer2.0.conv1.weight" not in frozen
    assert not fuse(network, X, Fusion(copies="dense")).held


def test_linear_bottlenecks_stay_in_a_chain_and_join_in_a_concatenation() -> None:
    model, x = models.build("mobilenet-v2", width=0.25, num_classes=5), torch.randn(1, 3, 16, 16)
    made = widen(model, x, copies="dense", operators=("add_identity",))
    assert not made.held
    assert reasons(made).pop("features.3") == (
        "features.3.layers.0 is grouped, so copies have no place among its channels"
    )
    assert reasons(made)["features.5"] == (
        "'hardtanh' would change negative copies: the result of 'features.3.layers.4' may be negative"
    )
    made = widen(model, x, add_form="concat", operators=("add_identity",))
    assert len(made.held) == 12
    assert additions(made) == 0


def test_a_network_without_shortcuts_is_left_alone() -> None:
    model, x = build("concat")
    made = widen(model, x, copies="dense")
    assert not made.held
    assert not made.refused


def block(seed: int = 0) -> nn.Module:
    model = net(
        lambda m, x: m.head(m.block(m.stem(x).relu()).mean((2, 3))),
        stem=nn.Conv2d(4, 4, 1),
        block=BasicBlock(4, 4),
        head=nn.Linear(4, 3),
    )
    enliven_(model.state_dict(), seed)
    return model


def test_without_a_copy_the_sum_lacks_its_channel() -> None:
    model, cut = block(), 2
    network = fuse(model, ONE, Fusion(copies="dense")).network.eval()
    graph = capture(network, ONE)
    group = next(g for g in graph.groups if g.size == 8)
    assert {m.tensor for m in group.members} == {
        "block.conv1.weight",
        "block.conv1.bias",
        "block.conv2.weight",
    }
    keep = np.arange(8) != 4 + cut
    small = apply(network, make_plan(graph, {group.id: keep}))

    x = model.stem(ONE).relu()
    inner = model.block.relu(model.block.bn1(model.block.conv1(x)))
    shortcut = x.clone()
    shortcut[:, cut] = 0
    expected = model.head((model.block.bn2(model.block.conv2(inner)) + shortcut).relu().mean((2, 3)))
    assert torch.allclose(small(ONE), expected, atol=1e-5)


def test_a_widened_network_trains_and_is_pruned() -> None:
    images = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    data = [(images[i : i + 8], torch.randint(0, 5, (8,))) for i in range(0, 32, 8)]
    model = models.build("resnet-8", width=4, num_classes=5)
    network = fuse(model, images[:1], Fusion(copies="dense")).network
    before = network.get_submodule("stages.0.0.conv1").weight.detach().clone()
    config = FitConfig(steps=3, lr=0.01, precision="32-true", accelerator="cpu")
    fit(network, data, config=config, progress=False)
    assert not torch.equal(network.get_submodule("stages.0.0.conv1").weight.detach(), before)
    plan = billhook.prune(network, images[:1], budget=billhook.Budget(macs=0.5))
    small = billhook.apply(network, plan)
    assert (
        capture(small, images[:1]).costs.cost().macs <= 0.5 * capture(network, images[:1]).costs.cost().macs
    )
    assert verify(network, plan, images[:1]).exact


@pytest.mark.parametrize("options", [{"copies": "dense"}, {"add_form": "concat"}])
def test_a_plan_repeats_the_rewrite_on_the_original(options: dict[str, str]) -> None:
    model, x = Stages(PreActivation), X
    enliven_(model.state_dict())
    network = fuse(model.eval(), x, Fusion(**options)).network.eval()
    plan = billhook.prune(network, x, budget=billhook.Budget(macs=0.6))
    again = fused(model, plan)
    assert again.code == network.code
    assert verify(model, plan, x).exact
