"""Channel selection: the same function, and blocks that choose what they read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import billhook
from billhook import Budget
from billhook.deploy.backends import onnxruntime_
from billhook.fuse import ChannelSelection, channel_selection
from billhook.graph import capture, make_plan
from billhook.models import build as zoo
from tests.networks import build


class Block(nn.Module):
    """Norm, activation, convolution, twice; added to the input."""

    def __init__(self, trunk: int, inner: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(trunk), nn.Conv2d(trunk, inner, 3, padding=1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(inner), nn.Conv2d(inner, trunk, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.bn2(self.conv1(self.bn1(x).relu())).relu())


class PreActivation(nn.Module):
    """A stem, two blocks, a norm, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.a, self.b = Block(16, 12), Block(16, 12)
        self.bn, self.head = nn.BatchNorm2d(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bn(self.b(self.a(self.stem(x)))).relu().mean((2, 3)))


INPUTS = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PreActivation().eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    nn.init.uniform_(tensor, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
    return network


def test_the_copy_computes_the_same_and_the_model_is_untouched(model: nn.Module) -> None:
    names = set(model.state_dict())
    rewritten = channel_selection(model, INPUTS)
    assert torch.equal(rewritten(INPUTS), model(INPUTS))
    assert set(model.state_dict()) == names
    assert "a.bn1.norm.weight" in rewritten.state_dict()
    assert rewritten.a.bn1.norm.weight is not model.a.bn1.weight


def test_what_each_block_reads_is_a_group_and_the_trunk_stays_whole(model: nn.Module) -> None:
    assert capture(model, INPUTS).groups["stem"].prunable
    groups = capture(channel_selection(model, INPUTS), INPUTS).groups
    assert [g.id for g in groups.prunable] == [
        "a.conv1", "b.conv1", "a.bn1.select", "b.bn1.select"
    ]  # fmt: skip
    assert {(m.tensor, m.role) for m in groups["a.bn1.select"].members} == {
        ("a.bn1.select.index", "out"),
        *((f"a.bn1.norm.{name}", "through") for name in ("weight", "bias", "running_mean", "running_var")),
        ("a.conv1.weight", "in"),
    }
    assert "picked by a selection layer" in str(groups["stem"].frozen)


def test_selection_costs_no_multiplication(model: nn.Module) -> None:
    rewritten = channel_selection(model, INPUTS)
    assert billhook.cost(rewritten, INPUTS).macs == billhook.cost(model, INPUTS).macs
    assert billhook.cost(rewritten, INPUTS).params == billhook.cost(model, INPUTS).params
    plan = make_plan(capture(rewritten, INPUTS), {"a.bn1.select": np.arange(16) % 2 == 0})
    assert (
        billhook.cost(rewritten, INPUTS, plan).macs == billhook.cost(model, INPUTS).macs - 2 * 8 * 12 * 9 * 64
    )


def test_removal_equals_silence(model: nn.Module) -> None:
    rewritten = channel_selection(model, INPUTS)
    keep = np.isin(np.arange(16), [1, 4, 5, 11, 15])
    graph = capture(rewritten, INPUTS)
    plan = make_plan(graph, {"a.bn1.select": keep, "b.conv1": np.arange(12) > 3})
    small = billhook.apply(rewritten, plan)
    assert isinstance(small, PreActivation)
    assert small.a.bn1.select.index.tolist() == [1, 4, 5, 11, 15]
    assert small.a.bn1.norm.num_features == small.a.conv1.in_channels == 5
    assert billhook.verify(rewritten, plan, INPUTS).exact
    with torch.no_grad():
        model.a.conv1.weight[:, ~keep] = 0
        model.b.conv2.weight[:, :4] = 0
    assert torch.allclose(small(INPUTS), model(INPUTS), atol=1e-5)


def test_the_small_network_can_be_pruned_again_and_trained(model: nn.Module) -> None:
    rewritten = channel_selection(model, INPUTS)
    settings = {"method": "bn_scale", "budget": Budget(macs=0.6), "round_to": 1}
    once = billhook.apply(rewritten, billhook.prune(rewritten, INPUTS, **settings))
    twice = billhook.apply(once, billhook.prune(once, INPUTS, **settings))
    assert len(twice.a.bn1.select.index) < len(once.a.bn1.select.index) < 16
    twice.train()(INPUTS).sum().backward()
    assert twice.stem.weight.grad.abs().sum() > 0


def test_it_runs_as_onnx(model: nn.Module, tmp_path: Path) -> None:
    assert onnxruntime_.INFO.title
    rewritten = channel_selection(model, INPUTS)
    plan = billhook.prune(rewritten, INPUTS, method="l2", budget=Budget(macs=0.5), round_to=1)
    small = billhook.apply(rewritten, plan)
    artifact = billhook.export(small, INPUTS, tmp_path / "small")  # compares with PyTorch
    assert artifact.manifest.parity["max_rel_error"] < 1e-3


def test_weights_survive_storage(model: nn.Module) -> None:
    rewritten = channel_selection(model, INPUTS)
    plan = billhook.prune(rewritten, INPUTS, method="bn_scale", budget=Budget(macs=0.5), round_to=1)
    small = billhook.apply(rewritten, plan)
    again = billhook.apply(channel_selection(PreActivation().eval(), INPUTS), plan)
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(INPUTS), small(INPUTS))


def test_dense_connections_get_a_selection_per_layer() -> None:
    model = zoo("densenet-40").eval()
    inputs = torch.zeros(1, 3, 32, 32)
    rewritten = channel_selection(model, inputs)
    layers = [name for name, m in rewritten.named_modules() if isinstance(m, ChannelSelection)]
    # 36 layers and 2 transitions read what others read, too; the last norm is read through global pooling.
    assert len(layers) == 38
    with torch.no_grad():
        assert torch.equal(rewritten(inputs), model(inputs))


@pytest.mark.parametrize("name", ["plain", "residual", "attention"])
def test_other_networks_come_back_as_copies(name: str) -> None:
    model, inputs = build(name)
    rewritten = channel_selection(model, inputs)
    assert rewritten is not model
    assert rewritten.state_dict().keys() == model.state_dict().keys()
    assert not any(isinstance(m, ChannelSelection) for m in rewritten.modules())


def test_modes_are_kept(model: nn.Module) -> None:
    model.train()
    model.a.bn1.eval()
    rewritten = channel_selection(model, INPUTS)
    assert rewritten.training
    assert rewritten.b.bn1.select.training
    assert rewritten.b.bn1.training
    assert not rewritten.a.bn1.norm.training


def test_it_says_how_much_it_selects() -> None:
    assert repr(ChannelSelection(16)) == "ChannelSelection(16 channels)"
