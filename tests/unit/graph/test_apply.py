"""Apply: a smaller network of the user's own class, and an original that nobody touched."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook.errors import ApplyError
from billhook.graph import ExportedNetwork, Plan, apply, apply_, capture, make_plan, verify
from tests.networks import NETWORKS, Residual, build
from tests.oracle import prune_half, random_plan, randomize


def half(model: nn.Module, inputs: Any) -> Plan:
    return random_plan(capture(model, inputs))


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "attention"])
def test_the_result_is_the_users_own_class_and_really_smaller(name: str) -> None:
    model, x = build(name)
    small = apply(model, half(model, x))
    assert type(small) is type(model)
    assert sum(p.numel() for p in small.parameters()) < 0.6 * sum(p.numel() for p in model.parameters())


def test_the_original_is_untouched() -> None:
    model, x = build("residual")
    model.train()
    model.bn1.eval()
    model.stem.weight.requires_grad_(False)
    model(x).sum().backward()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    parameters = {
        n: (p, p.requires_grad, None if p.grad is None else p.grad.clone())
        for n, p in model.named_parameters()
    }
    modes = [m.training for m in model.modules()]
    attributes = {n: dict(vars(m)) for n, m in model.named_modules()}

    small = apply(model, half(model, x))
    with torch.no_grad():
        for p in small.parameters():
            p.zero_()

    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    for name, parameter in model.named_parameters():
        before, requires_grad, gradient = parameters[name]
        assert parameter is before
        assert parameter.requires_grad == requires_grad
        assert (gradient is None and parameter.grad is None) or torch.equal(parameter.grad, gradient)
    assert {n: dict(vars(m)) for n, m in model.named_modules()} == attributes


def test_the_result_shares_no_memory_with_the_original() -> None:
    model, x = build("residual")
    small = apply(model, make_plan(capture(model, x), {"inner1": np.arange(24) < 5}))
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    assert not own & {t.untyped_storage().data_ptr() for t in [*small.parameters(), *small.buffers()]}


def test_modes_and_frozen_parameters_carry_over() -> None:
    model, x = build("residual")
    model.train()
    model.bn1.eval()
    model.inner1.weight.requires_grad_(False)
    small = apply(model, half(model, x))
    assert {n: m.training for n, m in small.named_modules()} == {
        n: m.training for n, m in model.named_modules()
    }
    assert {n: p.requires_grad for n, p in small.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }


def test_kept_weights_are_those_of_the_original() -> None:
    model, x = build("plain")
    keep = np.arange(24) % 3 == 0
    small = apply(model, make_plan(capture(model, x), {"conv2": keep}))
    index = torch.from_numpy(np.flatnonzero(keep))
    assert torch.equal(small.conv2.weight, model.conv2.weight[index])
    assert torch.equal(small.bn2.running_var, model.bn2.running_var[index])
    assert torch.equal(small.conv3.weight, model.conv3.weight[:, index])
    assert torch.equal(small.head.weight, model.head.weight)


def test_a_plan_that_removes_nothing_gives_an_equal_network() -> None:
    model, x = build("residual")
    small = apply(model, make_plan(capture(model, x), {}))
    assert small is not model
    assert torch.equal(small(x), model(x))


def test_a_plan_without_its_graph_does_the_same() -> None:
    model, x = build("residual")
    plan = half(model, x)
    read = Plan.from_json(plan.to_json())
    assert read.graph is None
    assert torch.equal(apply(model, read)(x), apply(model, plan)(x))


def test_a_plan_fits_other_weights_of_the_same_network() -> None:
    model, x = build("residual")
    plan = half(model, x)
    other = build("residual", seed=5)[0]
    assert verify(other, plan, x, small=apply(other, plan)).exact


def test_removal_can_be_repeated() -> None:
    model, x = build("residual")
    once = apply(model, half(model, x))
    twice = apply(once, half(once, x))
    assert verify(once, half(once, x), x, small=twice).exact
    assert twice.inner1.out_channels == 6


def test_in_place_the_object_stays_and_becomes_smaller() -> None:
    model, x = build("residual")
    plan = half(model, x)
    expected = apply(model, plan)(x)
    same = apply_(model, plan)
    assert same is model
    assert type(model) is Residual
    assert model.inner1.weight.shape == (12, 8, 3, 3)
    assert torch.equal(model(x), expected)


class Fixed(nn.Module):
    """Sizes are written into forward as numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.drop = nn.Linear(6, 12), nn.Linear(8, 3), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return self.two(self.drop(x[:, :8] * x[:, 4:].sigmoid()))


def test_fixed_sizes_give_the_exported_network_and_a_message(caplog: pytest.LogCaptureFixture) -> None:
    model, x = randomize(Fixed()), torch.randn(3, 6)
    small = prune_half(model, x).small
    assert isinstance(small, ExportedNetwork)
    assert "Fixed: forward holds sizes that cannot be changed from outside" in caplog.text
    assert set(small.state_dict()) == set(model.state_dict())


def test_in_place_needs_the_users_own_class() -> None:
    model, x = randomize(Fixed()), torch.randn(3, 6)
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(ApplyError, match=r"Fixed cannot be made smaller in place.*use apply"):
        apply_(model, half(model, x))
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert model(x).shape == (3, 3)


class Stubborn(Residual):
    def __deepcopy__(self, memo: dict[int, Any]) -> Stubborn:
        raise RuntimeError("one of a kind")


def test_a_model_that_cannot_be_copied_is_an_apply_error() -> None:
    model, x = randomize(Stubborn()).eval(), torch.randn(2, 3, 8, 8)
    with pytest.raises(ApplyError, match=r"Stubborn cannot be copied \(RuntimeError: one of a kind\)"):
        apply(model, half(model, x))


class Twice(nn.Module):
    """A module used twice, and two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.again, self.out = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.tied = nn.Linear(8, 8)
        self.tied.weight = self.again.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.again(self.inp(x).relu()).relu()).relu()
        return self.out(self.tied(x).relu())


def test_shared_weights_stay_shared() -> None:
    small = prune_half(randomize(Twice()), torch.randn(2, 4)).small
    assert isinstance(small, Twice)
    assert small.tied.weight is small.again.weight
    assert small.again.weight.shape == (4, 4)
    assert small.tied.bias is not small.again.bias


class Helped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.aux = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.one(x).relu()
        return (self.two(x), self.aux(x)) if self.training else self.two(x)


def test_layers_that_only_training_uses_are_named(caplog: pytest.LogCaptureFixture) -> None:
    model, x = randomize(Helped()), torch.randn(2, 4)
    small = prune_half(model, x).small
    assert (
        "layers that do not run in eval mode were left as they are and may no longer fit: aux" in caplog.text
    )
    assert small.aux.weight.shape == (3, 8)


@pytest.mark.parametrize("name", ["depthwise_squeeze", "attention", "chunk_concat"])
def test_the_smaller_network_can_be_trained(name: str) -> None:
    model, x = build(name)
    small = apply(model.train(), half(model, x))
    assert small.training
    x, y = torch.randn(8, 3, 8, 8), torch.arange(8) % 5
    optimizer = torch.optim.SGD(small.parameters(), 0.02)
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(small(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.grad is not None for p in small.parameters())


def test_the_global_random_state_is_untouched() -> None:
    model, x = build("residual")
    plan = half(model, x)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    apply(model, plan)
    verify(model, plan, x)
    assert torch.equal(torch.rand(4), expected)


class TwoNames(nn.Module):
    """One module object under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
        self.blocks, self.head = nn.ModuleList([self.shared, self.shared]), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def test_a_module_under_two_names_stays_one_and_keeps_its_weights() -> None:
    model, x = randomize(TwoNames()), torch.randn(2, 4)
    weight = model.shared[0].weight
    pruned = prune_half(model, x)
    assert pruned.small.blocks[1] is pruned.small.shared
    assert model.blocks[0][0].weight is weight
    kept = pruned.plan.keep["shared.0"]
    assert torch.equal(pruned.small.shared[0].weight, weight[torch.from_numpy(kept)])


class Cached(nn.Module):
    """Keeps what it made of its weights while it is in eval mode (LeViT's attention biases)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        self.bias, self.bias_cache = nn.Parameter(torch.zeros(8)), {}

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.head((self.fc(x) + self.bias.sigmoid()).relu())
        if "cpu" not in self.bias_cache:
            self.bias_cache["cpu"] = self.bias.sigmoid()
        return self.head((self.fc(x) + self.bias_cache["cpu"]).relu())


@pytest.mark.parametrize("warm", [True, False], ids=["after a pass", "before"])
def test_what_earlier_passes_kept_does_not_leak_into_the_smaller_network(warm: bool) -> None:
    model, x = randomize(Cached()).eval(), torch.randn(2, 4)
    if warm:
        with torch.no_grad():
            model(x)
    kept = dict(model.bias_cache)
    small = prune_half(model, x).small
    assert isinstance(small, Cached)
    assert small.bias.shape == (4,)
    assert model.bias_cache == kept or not warm
    torch.testing.assert_close(small.eval()(x), small.train()(x))
