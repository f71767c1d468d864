"""`fuse`: what is rewritten, what is refused, what is checked, and that the result is an ordinary network."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import billhook
from billhook import Budget
from billhook.errors import CaptureError, FusionError, InputError
from billhook.fuse import Fusion, fuse, lower
from billhook.fuse.fuse import measure_magnitudes
from billhook.graph import apply, capture, make_plan
from billhook.graph.fusions import Pass, Refusal, Site, passes
from billhook.graph.layers import LayeredNetwork
from tests.fused import distance, fused, fused_graph, random_plan
from tests.residual import residual
from tests.small_net import net


def test_the_network_computes_the_same_and_the_model_is_left_alone() -> None:
    model, x = residual("bottleneck")
    before = copy.deepcopy(model.state_dict())
    made = fuse(model, x)
    assert isinstance(made.network, LayeredNetwork)
    for batch in (x, x[:1], torch.cat((x, -x, x))):
        assert distance(model, made.network, batch) <= 1e-5
    assert before.keys() <= made.network.state_dict().keys()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_it_costs_what_the_original_does() -> None:
    model, x = residual("basic")
    assert billhook.cost(fuse(model, x).network, x).macs == billhook.cost(model, x).macs
    assert billhook.cost(fuse(model, x).network, x).params == billhook.cost(model, x).params


def test_it_says_what_it_did() -> None:
    model = net(
        lambda m, x: m.c((y := m.a(x)) + m.b(y)) + m.a(x).relu(),
        a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1), c=nn.Conv2d(4, 4, 1),
    )  # fmt: skip
    made = fuse(model, torch.randn(2, 3, 4, 4), Fusion(operators=("add_identity", "add_projection")))
    told = made.to_dict()
    assert [entry["pass"] for entry in told["fused"]] == ["shortcut"] * len(made.held)
    assert "shortcut: add_identity at b" in str(made)
    assert set(told) == {"fused", "not_fused"}
    assert str(fuse(nn.Conv2d(3, 2, 1), torch.randn(2, 3, 4, 4))) == "nothing to fuse"


def test_refusals_have_reasons() -> None:
    model = net(lambda m, x: (y := m.a(x)) + m.b(y).relu(), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1))
    made = fuse(model, torch.randn(2, 3, 4, 4))
    (entry,) = [e for e in made.to_dict()["not_fused"] if e["pass"] == "shortcut"]
    assert "does not end in a convolution" in entry["why"]
    assert f"shortcut: not {entry['operator']} at {entry['at']}: {entry['why']}" in str(made)


@pytest.mark.parametrize("level", ["none", "conservative"])
def test_lower_levels_rewrite_nothing_before_pruning(level: str) -> None:
    model, x = residual("basic")
    made = fuse(model, x, Fusion(level=level))
    assert not made.held
    assert made.network.fusions == ()
    assert capture(made.network, x).fingerprint == capture(model, x).fingerprint
    plan = make_plan(capture(made.network, x), {"stem": np.arange(8) < 4})
    torch.testing.assert_close(apply(model, plan)(x), apply(made.network, plan)(x))


@pytest.mark.parametrize(
    ("options", "blocks"),
    [
        ({"include": ("layer1.*",)}, ["layer1.0", "layer1.1"]),
        ({"include": ("layer1.0", "layer2.*")}, ["layer1.0", "layer2.0"]),
        ({"exclude": ("layer1.0",)}, ["layer1.1", "layer2.0"]),
        ({"operators": ("add_projection",)}, ["layer2.0"]),
        ({"operators": ("batch_norm",)}, []),
        ({"add_form": "group"}, []),
    ],
)
def test_scope(options: dict[str, Any], blocks: list[str]) -> None:
    model, x = residual("basic")
    made = fuse(model, x, Fusion(**options))
    assert [site.at for _, site in made.held] == blocks
    assert distance(model, made.network, x) <= 1e-5


@pytest.mark.parametrize("options", [{"include": ("layer7.*",)}, {"exclude": ("layr1.0",)}])
def test_a_pattern_that_matches_nothing_is_named(options: dict[str, Any]) -> None:
    model, x = residual("basic")
    with pytest.raises(InputError, match=r"fusion pattern '(layer7\.\*|layr1\.0)' matches no place"):
        fuse(model, x, Fusion(**options))


def test_what_cannot_be_captured_is_an_error() -> None:
    model = net(lambda m, x: m.a(x) if x.sum() > 0 else x, a=nn.Conv2d(3, 3, 1))
    with pytest.raises(CaptureError, match="cannot be captured"):
        fuse(model, torch.ones(2, 3, 4, 4))


def test_modes_are_kept() -> None:
    model, x = residual("basic")
    model.train()
    model.bn.eval()
    made = fuse(model, x)
    assert made.network.training
    assert not made.network.get_submodule("bn").training
    for name, value in model.state_dict().items():
        assert torch.equal(made.network.state_dict()[name], value), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    model, x = residual("basic")
    made = fuse(model.to(dtype), x.to(dtype))
    assert len(made.held) == 3
    assert made.network.get_buffer("layer1.0.copies.gate").dtype == dtype
    assert distance(model, made.network, x.to(dtype)) <= (1e-12 if dtype == torch.float64 else 1e-2)


def test_a_network_that_works_in_place_on_its_inputs() -> None:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        x -= 1.0
        return (y := m.a(x)) + m.b(y)

    model = net(run, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1))
    x = torch.randn(2, 3, 4, 4)
    given = x.clone()
    made = fuse(model, x)
    assert torch.equal(x, given)
    torch.testing.assert_close(made.network(x.clone()), model(x.clone()))


# The check of passes


class Wrong(Pass):
    """Doubles what a convolution computes, once."""

    kind = "widen"
    operators = ("add_identity",)

    def find(self, network: LayeredNetwork, settings: Mapping[str, Any]) -> Iterator[Site | Refusal]:
        if "doubled" not in network.meta:
            yield Site("stem", "add_identity")

    def rewrite(self, network: LayeredNetwork, site: Site) -> None:
        with torch.no_grad():
            network.get_parameter("stem.weight").mul_(2)
        network.meta["doubled"] = True


def test_a_pass_that_changes_the_function_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = residual("basic")
    broken = SimpleNamespace(get=lambda name: Wrong())
    monkeypatch.setattr(sys.modules[fuse.__module__], "passes", broken)  # the function hides the module
    monkeypatch.setattr("billhook.graph.fusions.passes", broken)
    with pytest.raises(FusionError, match=r"pass 'shortcut' changes .* rewriting stem; exclude"):
        fuse(model, x)
    assert "shortcut" in passes.names()


# What copies are judged by


def test_copies_are_judged_by_the_size_of_their_channel() -> None:
    model, x = residual("basic")
    network = fuse(model, x).network
    with torch.no_grad():
        y = model.relu(model.bn(model.stem(x)))
    torch.testing.assert_close(network.get_buffer("layer1.0.copies.magnitude"), y.abs().mean((0, 2, 3)))


def test_magnitudes_are_taken_from_data_if_there_are_some() -> None:
    model, x = residual("basic")
    data = [(torch.randn(3, 3, 8, 8), torch.zeros(3)), (x, torch.zeros(2))]
    network = fuse(model, x, data=data).network
    with torch.no_grad():
        means = [model.relu(model.bn(model.stem(b))).abs().mean((0, 2, 3)) for b, _ in data]
    torch.testing.assert_close(network.get_buffer("layer1.0.copies.magnitude"), (means[0] + means[1]) / 2)
    same = fuse(model, x, data=[b for b, _ in data]).network
    assert torch.equal(*(n.get_buffer("layer1.1.copies.magnitude") for n in (network, same)))


def test_only_a_few_batches_are_read() -> None:
    model, x = residual("basic")
    read = iter([x] * 100)
    fuse(model, x, data=read)
    assert len(list(read)) == 100 - 8


def test_magnitudes_can_be_measured_anew() -> None:
    network, x = fused("basic")
    before = network.get_buffer("layer2.0.copies.magnitude").clone()
    network.train()
    statistics = network.get_buffer("bn.running_mean").clone()
    measure_magnitudes(network, ((3 * x,), {}))
    assert network.training
    assert not torch.equal(network.get_buffer("layer2.0.copies.magnitude"), before)
    assert torch.equal(network.get_buffer("bn.running_mean"), statistics)


# An ordinary network


def test_it_is_whole_until_something_leaves() -> None:
    network, _ = fused("basic")
    assert network.whole
    assert copy.deepcopy(network).whole
    small = apply(network, make_plan(fused_graph("basic"), {"layer1.0.copies": np.arange(8) < 7}))
    assert isinstance(small, LayeredNetwork)
    assert not small.whole


@pytest.mark.parametrize("empty", [0.0, 0.6])
def test_it_can_be_trained_and_lowered_after_that(empty: float) -> None:
    network, x = fused("basic")
    small = apply(network, random_plan(fused_graph("basic"), 1, empty=empty)).train()
    targets = torch.tensor([1, 3])
    optimizer = torch.optim.SGD(small.parameters(), lr=0.05)
    mean = small.get_buffer("bn.running_mean").clone()
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = F.cross_entropy(small(x), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert not torch.equal(small.get_buffer("bn.running_mean"), mean)
    assert distance(small.eval(), lower(small, x), x) <= 1e-5


def test_training_it_is_training_the_original() -> None:
    model, x = residual("pre-activation")
    network = fuse(model, x).network
    for one in (model, network):
        optimizer = torch.optim.SGD(one.train().parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(one(x), torch.tensor([1, 3])).backward()
            optimizer.step()
    state = network.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["l2", "random"])
def test_methods_prune_it(method: str) -> None:
    network, x = fused("basic")
    plan = billhook.prune(network, x, method=method, budget=Budget(macs=0.6), round_to=1)
    assert plan.fusions == network.fusions
    assert any(name.endswith("copies") for name in plan.removed)
    assert billhook.verify(network, plan, x).exact
    assert billhook.cost(network, x, plan).macs <= 0.6 * billhook.cost(network, x).macs


# What users' networks do


class FrozenNorm(nn.BatchNorm2d):
    def train(self, mode: bool = True) -> FrozenNorm:
        super().train(False)
        return self


class Frozen(nn.Module):
    """One norm is frozen for good, one is called as a function in eval mode, and one trains."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.frozen = nn.Conv2d(3, 4, 3), FrozenNorm(4)
        self.b, self.called, self.trained = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.frozen(self.a(x)))
        mean, var = self.called.running_mean, self.called.running_var
        return self.trained(F.batch_norm(x, mean, var, training=False)).relu()


def test_norms_that_are_frozen_stay_frozen() -> None:
    model, x = Frozen().train(), 3 + torch.randn(2, 3, 8, 8)
    network = fuse(model, x).network
    torch.testing.assert_close(network(x), model(x))
    for name in ("frozen", "called", "trained"):
        assert torch.equal(
            network.get_buffer(f"{name}.running_mean"), model.get_buffer(f"{name}.running_mean")
        )
    assert network.get_buffer("trained.running_mean").any()


def test_a_part_of_a_network_may_have_another_precision() -> None:
    model, x = residual("basic")
    half = model.to(torch.bfloat16)
    mixed = net(lambda m, x: m.rest(m.first(x).to(torch.bfloat16)), first=nn.Conv2d(3, 3, 1), rest=half)
    network = fuse(mixed, x).network
    assert network(x).dtype == torch.bfloat16
    assert all(b.dtype == torch.bfloat16 for n, b in network.named_buffers() if n.endswith("gate"))


def test_outputs_that_are_no_numbers_are_compared_too() -> None:
    model, x = residual("basic")
    masked = net(
        lambda m, x: (m.inner(x) > 0, m.inner(x).masked_fill(x.sum() < 1e9, -torch.inf)), inner=model
    )
    assert fuse(masked, x).held


def test_a_network_that_draws_is_not_blamed_on_billhook() -> None:
    model, x = residual("basic")
    noisy = net(lambda m, x: m.inner(x) + torch.rand(1), inner=model)
    with pytest.raises(FusionError, match="different results for the same inputs"):
        fuse(noisy, x)


def test_a_network_that_does_something_else_for_other_batches_is_taken_for_this_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, x = residual("basic")
    fickle = net(lambda m, x: m.inner(x) * 2 if x.shape[0] == 1 else m.inner(x), inner=model)
    network = fuse(fickle, x).network
    torch.testing.assert_close(network(x), fickle(x))
    assert "takes only this one" in caplog.text


def test_data_without_a_batch_or_of_another_kind_is_an_error() -> None:
    model, x = residual("basic")
    with pytest.raises(InputError, match="no batch in data"):
        fuse(model, x, data=[])
    with pytest.raises(InputError, match="does not run on a batch of data"):
        fuse(model, x, data=[(torch.randn(2, 5), torch.zeros(2))])
