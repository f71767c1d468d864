"""Average pooling is a convolution, which the one beside it can do at no more MACs."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import billhook
from billhook import models
from billhook.fuse.fuse import Fused, fuse
from billhook.fuse.options import Fusion
from billhook.graph import verify
from billhook.graph.alive import enliven_
from billhook.graph.fusions import fused
from tests.small_net import net
from tests.unit.fuse.passes.widening import growth, reasons, widen

X = torch.randn(2, 4, 12, 13, generator=torch.Generator().manual_seed(0))


def forms(made: Fused) -> list[str]:
    return [str(site.settings["form"]) for _, site in made.held]


def pools(made: Fused) -> int:
    """Return how many pooling operators are left."""
    names = ("avg_pool", "mean")
    return sum(any(n in str(node.target) for n in names) for node in made.network.graph.nodes)


def run(x: Tensor, layer: nn.Module, *pooling: Any, **more: Any) -> Tensor:
    return F.avg_pool2d(layer(x), *pooling, **more).relu()


@pytest.mark.parametrize(
    ("layer", "pooling", "kernel", "stride"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), (2,), 4, 2),
        (nn.Conv2d(4, 6, 3, padding=1, bias=False), (2,), 4, 2),
        (nn.Conv2d(4, 6, 3), (3,), 5, 3),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2,), 5, 4),
        (nn.Conv2d(4, 8, 3, padding=1, groups=2), (2,), 4, 2),
        (nn.Conv2d(4, 4, 3, padding="same", groups=4), (2,), 4, 2),
        (nn.Conv2d(4, 6, 5), (2, 2, 0, True), 6, 2),
        (nn.Conv2d(4, 6, 3, padding=1), (2, 2, 0, False, True, 3), 4, 2),
    ],
)
def test_a_convolution_does_the_pooling_behind_it(
    layer: nn.Module, pooling: tuple[Any, ...], kernel: int, stride: int
) -> None:
    model = net(lambda m, x: run(x, m.conv, *pooling), conv=layer)
    x = X[:, :, :, :12]
    made = widen(model, x)
    merged = made.network.get_submodule("conv")
    assert forms(made) == ["behind"]
    assert merged.kernel_size == (kernel, kernel)
    assert merged.stride == (stride, stride)
    assert pools(made) == 0
    assert growth(made, model, x) <= 1


def test_three_by_three_and_two_by_two_are_four_by_four() -> None:
    model = net(lambda m, x: run(x, m.conv, 2), conv=nn.Conv2d(4, 6, 3, padding=1))
    x = X[:, :, :, :12]
    assert growth(widen(model, x), model, x) == pytest.approx(16 / 36)


def test_a_pointwise_convolution_pools_first() -> None:
    model = net(lambda m, x: run(x, m.conv, 2), conv=nn.Conv2d(4, 6, 1))
    x = X[:, :, :, :12]
    made = widen(model, x)
    assert forms(made) == ["swap"]
    assert growth(made, model, x) == pytest.approx(1 / 4)
    always = widen(model, x, keep_if="always")
    assert forms(always) == ["behind"]
    assert growth(always, model, x) == pytest.approx(1)


@pytest.mark.parametrize(
    ("layer", "pooling", "why"),
    [
        (nn.Conv2d(4, 6, 3, padding=2, dilation=2), {"kernel_size": 2}, "has gaps"),
        (nn.Conv2d(4, 6, 3), {"kernel_size": 3, "padding": 1}, "zeros around"),
        (nn.Conv2d(4, 6, 3), {"kernel_size": 3, "padding": 1, "count_include_pad": False}, "fewer pixels"),
        (nn.Conv2d(4, 6, 3), {"kernel_size": 4, "ceil_mode": True}, "fewer pixels"),
        (nn.Conv2d(4, 6, 1), {"kernel_size": 3, "stride": 1}, "more MACs"),
        (nn.Conv2d(4, 6, 1, stride=3), {"kernel_size": 2}, "more MACs"),
    ],
)
def test_pooling_that_is_no_part_of_the_convolution_stays(
    layer: nn.Module, pooling: dict[str, Any], why: str
) -> None:
    made = widen(net(lambda m, x: run(x, m.conv, **pooling), conv=layer), X)
    assert not made.held
    assert all(why in text for text in reasons(made).values())
    assert reasons(made)


def test_a_result_that_others_read_stays() -> None:
    model = net(lambda m, x: run(y := m.conv(x), nn.Identity(), 2).mean() + y.mean(), conv=nn.Conv2d(4, 6, 3))
    assert "conv is read by others, too" in reasons(widen(model, X)).values()
    model = net(lambda m, x: run(m.conv(x), m.conv, 2), conv=nn.Conv2d(4, 4, 3))
    assert "conv is called more than once" in reasons(widen(model, X)).values()


@pytest.mark.parametrize(
    ("pooling", "more"),
    [((2,), {}), ((3, 2, 1), {}), ((2, 2, 0, False, True, 3), {}), ((3, 2, 1, False, False, 9), {})],
)
def test_only_if_asked_pooling_joins_the_pointwise_convolution_behind_it(
    pooling: tuple[Any, ...], more: dict[str, Any]
) -> None:
    model = net(lambda m, x: m.conv(F.avg_pool2d(x.relu(), *pooling, **more)), conv=nn.Conv2d(4, 6, 1))
    assert not widen(model, X).held
    made = widen(model, X, keep_if="always")
    assert forms(made) == ["before"]
    assert pools(made) == 0
    assert growth(made, model, X) == pytest.approx(pooling[0] ** 2)


@pytest.mark.parametrize(
    ("pool", "x", "kind"),
    [
        (nn.AvgPool1d(3, 2, 1), X[..., 0], nn.Conv1d),
        (nn.AvgPool2d(3, 2, 1), X, nn.Conv2d),
        (nn.AvgPool2d((2, 3), divisor_override=5), X, nn.Conv2d),
        (nn.AvgPool3d(2), torch.randn(1, 4, 4, 4, 4), nn.Conv3d),
        (nn.AdaptiveAvgPool2d((3, 13)), X, nn.Conv2d),
        (nn.AdaptiveAvgPool2d(1), X, nn.Conv2d),
    ],
)
def test_only_if_asked_pooling_is_a_layer_of_its_own(
    pool: nn.Module, x: Tensor, kind: type[nn.Module]
) -> None:
    model = net(lambda m, x: m.pool(x.relu()), pool=pool)
    assert not widen(model, x).held
    made = widen(model, x, keep_if="always")
    layer = made.network.get_submodule("pool")
    assert isinstance(layer, kind)
    assert layer.groups == 4
    assert layer.weight.requires_grad
    assert pools(made) == 0


def test_windows_of_different_sizes_stay() -> None:
    made = widen(net(lambda m, x: F.adaptive_avg_pool2d(x, (5, 4)), conv=nn.Identity()), X, keep_if="always")
    assert "windows of different sizes" in str(made)


@pytest.mark.parametrize("keep", [False, True])
def test_global_pooling_is_a_layer_only_if_asked(keep: bool) -> None:
    def head(m: Any, x: Tensor) -> Tensor:
        return m.head(x.relu().mean((2, 3), keepdim=keep).flatten(1))

    model = net(head, head=nn.Linear(4, 3))
    assert not widen(model, X).held
    made = widen(model, X, keep_if="always")
    assert forms(made) == ["alone"]
    model = net(lambda m, x: head(m, m.conv(x)), conv=nn.Conv2d(4, 4, 3), head=nn.Linear(4, 3))
    model.run = lambda m, x: m.head(m.conv(x).mean((2, 3), keepdim=keep).flatten(1))
    made = widen(model, X, keep_if="always")
    assert forms(made) == ["behind"]
    assert made.network.get_submodule("conv").kernel_size == (12, 13)


def test_transitions_of_dense_networks_take_a_quarter_of_the_macs(torchvision: ModuleType) -> None:
    model, x = models.build("densenet-40", growth=2, num_classes=5), torch.randn(1, 3, 8, 8)
    made = widen(model, x)
    assert forms(made) == ["swap", "swap"]
    assert growth(made, model, x) < 1
    model = torchvision.models.densenet.DenseNet(4, (1, 1), 8, num_classes=3)
    assert forms(widen(model, torch.randn(1, 3, 64, 64), keep_if="always")) == ["behind", "alone"]


def test_a_plan_repeats_the_rewrite_on_the_original() -> None:
    model = net(
        lambda m, x: m.head(run(m.a(x).relu(), m.b, 2).mean((2, 3))),
        a=nn.Conv2d(4, 8, 3, padding=1),
        b=nn.Conv2d(8, 8, 3, padding=1),
        head=nn.Linear(8, 3),
    )
    enliven_(model.state_dict())
    network = fuse(model, X, Fusion(operators=("average_pool",), keep_if="always")).network.eval()
    plan = billhook.prune(network, X, budget=billhook.Budget(macs=0.5))
    assert fused(model, plan).code == network.code
    assert verify(model, plan, X).exact
