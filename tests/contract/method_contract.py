"""`MethodContract`: what every method promises. Inherit it, name the method, and pytest does the rest.

class TestMyMethod(MethodContract):
    method = "my_method"
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook.allocate.budget import Budget
from billhook.criteria import criteria
from billhook.errors import BudgetError, DivergedError, InputError
from billhook.graph import ChannelGroup, Plan, Scope, capture, cost, groups, verify
from billhook.methods import Outcome, methods, prune, shrink
from billhook.options import Configurable
from billhook.train import FitConfig
from tests.contract.wrong_values import wrong_values
from tests.networks import NETWORKS, batches, build

# Enough steps for every schedule to begin and to end.
QUICK = FitConfig(epochs=6, lr=0.02, precision="32-true", log_every=1)


class MethodContract:
    """Tests that hold for every method.

    Attributes:
        method: Name of the method or criterion.
        options: Options that make it quick enough for tests.
        networks: Names of the test networks it can prune.
        network: The one for tests that need just one; several groups, one of them a residual trunk.
        scope: Groups it can judge.
    """

    method: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    networks: ClassVar[tuple[str, ...]] = tuple(NETWORKS)
    network: ClassVar[str] = "residual"
    scope: ClassVar[Scope | None] = None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run every test that takes `each_network` once per network."""
        if "each_network" in metafunc.fixturenames:
            metafunc.parametrize("each_network", self.networks)

    def prune(self, name: str, model: nn.Module, inputs: Tensor, **changes: Any) -> Plan:
        """Return the method's plan with a budget that every network can reach."""
        return self.shrink(name, model, inputs, **changes).plan

    def shrink(self, name: str, model: nn.Module, inputs: Tensor, **changes: Any) -> Outcome:
        """Return the plan and the network it is for."""
        settings: dict[str, Any] = {
            "budget": Budget(macs=0.7),
            "scope": self.scope,
            "data": batches(name),
            "training": QUICK,
        }
        return shrink(model, inputs, method=self.method, options=self.options, **settings | changes)

    def touchable(self, model: nn.Module, inputs: Tensor) -> dict[str, ChannelGroup]:
        """Return the groups the method may touch."""
        chosen = (self.scope or Scope()).select(groups(model, inputs))
        return {g.id: g for g in chosen}

    def test_the_plan_meets_the_budget_and_equals_silence(self, each_network: str) -> None:
        model, inputs = build(each_network)
        outcome = self.shrink(each_network, model, inputs, verify=False)
        plan = outcome.plan
        original, pruned = cost(model, inputs), cost(model, inputs, plan)
        assert pruned.macs <= 0.7 * original.macs
        assert verify(outcome.model, plan, inputs).exact
        small = outcome.small()
        assert sum(p.numel() for p in small.parameters()) == pruned.params < original.params
        allowed = self.touchable(model, inputs)
        assert set(plan.removed) <= set(allowed)
        branches = {name for b in capture(model, inputs).branches for name in b.groups}
        assert all(kept >= 1 or name in branches for name, kept in plan.counts.items())

    def test_the_same_seed_gives_the_same_plan(self) -> None:
        first, second = (self.prune(self.network, *build(self.network), seed=3) for _ in range(2))
        assert first.to_json() == second.to_json()

    def test_model_and_random_state_are_untouched(self) -> None:
        model, inputs = build(self.network)
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        model(inputs).sum().backward()
        optimizer.step()
        before = _everything(model, optimizer)
        state = torch.get_rng_state()
        self.prune(self.network, model, inputs)
        after = _everything(model, optimizer)
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert all(m.training for m in model.modules())
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.parametrize("round_to", [1, 4])
    def test_kept_channels_are_multiples_or_untouched(self, round_to: int) -> None:
        model, inputs = build(self.network)
        plan = self.prune(self.network, model, inputs, round_to=round_to)
        group = self.touchable(model, inputs)
        for name in plan.removed:
            assert plan.counts[name] * group[name].width % round_to == 0

    def test_a_group_out_of_scope_is_untouched(self) -> None:
        model, inputs = build(self.network)
        first, *others = self.touchable(model, inputs)
        scope = Scope(include=tuple(others))
        plan = self.prune(self.network, model, inputs, scope=scope, budget=Budget(macs=0.9))
        assert plan.removed
        assert first not in plan.removed

    def test_a_budget_out_of_reach_names_what_can_be_reached(self) -> None:
        model, inputs = build(self.network)
        with pytest.raises(BudgetError, match=r"macs ≤ .* cannot be met") as caught:
            self.prune(self.network, model, inputs, budget=Budget(macs=0.0001))
        reachable = caught.value.reachable["macs"]
        plan = self.prune(self.network, model, inputs, budget=Budget(macs=reachable))
        assert cost(model, inputs, plan).macs == reachable

    def test_the_plan_survives_json_and_says_how_it_was_made(self) -> None:
        model, inputs = build(self.network)
        plan = self.prune(self.network, model, inputs, seed=5)
        again = Plan.from_json(plan.to_json())
        assert again == plan
        assert all(np.array_equal(again.keep[name], keep) for name, keep in plan.keep.items())
        made_by = json.loads(plan.to_json())["made_by"]
        assert made_by["method"] == self.method
        assert made_by["budget"] == {"macs": 0.7}
        assert made_by["seed"] == 5
        assert made_by["cost"]["after"]["macs"] == cost(model, inputs, plan).macs

    def test_after_an_interruption_the_same_plan_comes_out(self) -> None:
        model, inputs = build(self.network)
        expected = self.prune(self.network, *build(self.network))
        if self._needs_data():
            with pytest.raises(KeyboardInterrupt):
                self.prune(self.network, model, inputs, data=Interrupted(self.network, after=1))
        assert self.prune(self.network, model, inputs).to_json() == expected.to_json()

    def test_a_resumed_run_gives_the_same_plan_and_the_same_weights(self, tmp_path: Path) -> None:
        if not self._trains():
            return
        model, inputs = build(self.network)
        expected = self.shrink(self.network, model, inputs)
        every_step = replace(QUICK, checkpoint_steps=1)
        for stop in (1, 5, 8, 11):
            folder = tmp_path / str(stop)
            kept: dict[str, Any] = {"training": every_step, "checkpoint_dir": folder}
            with pytest.raises(KeyboardInterrupt):
                self.shrink(self.network, model, inputs, data=Interrupted(self.network, after=stop), **kept)
            resumed = self.shrink(self.network, model, inputs, resume=True, **kept)
            assert resumed.plan.to_json() == expected.plan.to_json()
            weights = expected.model.state_dict()
            assert all(torch.equal(t, weights[n]) for n, t in resumed.model.state_dict().items())

    def test_a_loss_that_becomes_nan_is_named_with_its_step(self) -> None:
        if not self._trains():
            return
        model, inputs = build(self.network)
        calls = iter(range(100))

        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            value = nn.functional.cross_entropy(outputs, targets)
            return value * (float("nan") if next(calls) == 2 else 1.0)

        with pytest.raises(DivergedError, match="step 2 "):
            self.shrink(self.network, model, inputs, loss=loss, training=replace(QUICK, log_every=50))

    def test_several_bounds_hold_at_once(self) -> None:
        model, inputs = build(self.network)
        budget = Budget(macs=0.8, params=0.7, size="90%")
        plan = self.prune(self.network, model, inputs, budget=budget, round_to=1)
        before, after = cost(model, inputs), cost(model, inputs, plan)
        assert after.macs <= 0.8 * before.macs
        assert after.params <= 0.7 * before.params
        assert after.bytes <= 0.9 * before.bytes

    def test_missing_data_is_asked_for(self) -> None:
        model, inputs = build(self.network)
        if self._needs_data():
            with pytest.raises(InputError, match="give data="):
                self.prune(self.network, model, inputs, data=None)
        else:
            assert self.prune(self.network, model, inputs, data=None).removed

    def test_wrong_options_are_refused_with_the_valid_range(self) -> None:
        model, inputs = build(self.network)
        for option, value, rule in wrong_values(self._kind()):
            with pytest.raises(InputError) as caught:
                prune(model, inputs, method=self.method, budget=Budget(macs=0.7), options={option: value})
            assert option in str(caught.value)
            assert str(rule) in str(caught.value)

    def test_an_unknown_option_lists_close_names(self) -> None:
        model, inputs = build(self.network)
        for option in [f.name for f in fields(self._kind())] or ["thing"]:
            with pytest.raises(InputError, match=f"has no option '{option}s'"):
                prune(model, inputs, method=self.method, budget=Budget(macs=0.7), options={option + "s": 1})

    def _kind(self) -> type[Configurable]:
        return methods.get(self.method) if self.method in methods.names() else criteria.get(self.method)

    def _trains(self) -> bool:
        return self.method in methods.names() and methods.info(self.method).trains

    def _needs_data(self) -> bool:
        registry = methods if self.method in methods.names() else criteria
        return registry.info(self.method).needs_data


def _everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return copies of weights, buffers, gradients and the optimiser's state."""
    found = {name: t.clone() for name, t in model.state_dict().items()}
    found |= {f"{name}.grad": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    for number, state in optimizer.state_dict()["state"].items():
        found |= {f"{number}.{key}": t.clone() for key, t in state.items()}
    return found


class Interrupted:
    """The batches of a test network, until somebody loses patience."""

    def __init__(self, name: str, after: int) -> None:
        self.batches, self.left = batches(name), after

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            yield batch
