"""`SparseContract`: what every sparse method promises. Inherit it, name the method, and pytest does the rest.

class TestMyMethod(SparseContract):
    method = "my_method"
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from billhook import Budget, apply, capture, prune, sparsify, verify
from billhook.errors import DivergedError, InputError, ScopeError
from billhook.graph import Plan, Scope
from billhook.graph.patterns import patterns
from billhook.methods.sparse import SparseMethod, Sparsified, sparse_methods
from billhook.methods.sparse._patterns import patterns_of
from billhook.options import rules
from billhook.sparse.allocation import reachable
from billhook.sparse.holding import holds
from billhook.train import FitConfig
from tests.contract.method_contract import Interrupted, _everything
from tests.contract.wrong_values import wrong_values
from tests.networks import NETWORKS, batches, build

# Enough steps for every schedule to begin and to end.
QUICK = FitConfig(epochs=6, lr=0.02, precision="32-true", log_every=1)

SINGLE_WEIGHTS = "block_punched:rows=1,columns=1"


class SparseContract:
    """Tests that hold for every sparse method.

    Attributes:
        method: Its name.
        options: Options that make it quick enough for tests.
        networks: Names of the test networks.
        network: The one for tests that need just one.
        stops: After how many batches a run is interrupted.
    """

    method: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    networks: ClassVar[tuple[str, ...]] = tuple(NETWORKS)
    network: ClassVar[str] = "residual"
    stops: ClassVar[tuple[int, ...]] = (1, 5, 8, 11)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run every test that takes `each_network` once per network, `each_pattern` once per pattern."""
        if "each_network" in metafunc.fixturenames:
            metafunc.parametrize("each_network", self.networks)
        if "each_pattern" in metafunc.fixturenames:
            metafunc.parametrize("each_pattern", patterns.names())

    def sparsify(self, name: str, model: nn.Module, inputs: Tensor, **changes: Any) -> Sparsified:
        """Return what the method makes of a test network."""
        settings: dict[str, Any] = {
            "sparsity": 0.6,
            "pattern": SINGLE_WEIGHTS,
            "data": batches(name),
            "training": QUICK,
            "method": self.method,
            "options": self.options,
        }
        return sparsify(model, inputs, **settings | changes)

    def test_the_wanted_fraction_of_the_weights_is_zero(self, each_network: str) -> None:
        model, inputs = build(each_network)
        sparse = self.sparsify(each_network, model, inputs)
        sizes = {layer.tensor: prod(layer.shape) for layer in capture(model, inputs).weights}
        structures = sparse.plan.patterns
        assert set(structures) == set(sizes)
        zeros = sum(s.mask.numel() - s.nonzeros for s in structures.values())
        assert abs(zeros - 0.6 * sum(sizes.values())) < len(sizes)
        assert all(s.nonzeros >= 1 for s in structures.values())
        assert sparse.weight_sparsity == pytest.approx(zeros / sum(sizes.values()))
        weights = dict(sparse.network.named_parameters())
        for name, structure in structures.items():
            assert bool((weights[name][~structure.mask] == 0).all())
        assert verify(model, sparse.plan, inputs).exact

    def test_every_pattern_comes_out_exactly(self, each_pattern: str) -> None:
        model, inputs = build(self.network)
        pattern = f"{each_pattern}|dense"
        layers = capture(model, inputs).weights
        found = patterns_of(layers, pattern)
        least, most = reachable({x.tensor: x.view for x in layers if x.tensor in found}, found)
        sparsity = min(max(0.5, least), most)
        sparse = self.sparsify(self.network, model, inputs, pattern=pattern, sparsity=sparsity)
        assert set(sparse.plan.patterns) == set(found)
        assert {s.pattern.name for s in sparse.plan.patterns.values()} == {each_pattern}
        assert holds(sparse.network, sparse.plan.patterns) is None
        assert torch.isfinite(sparse.network(inputs)).all()
        again = Plan.from_json(sparse.plan.to_json())
        small = apply(model, again)
        assert holds(small, again.patterns) is None
        assert verify(model, again, inputs, small=small).exact

    def test_the_plan_survives_json_and_makes_the_original_sparse(self) -> None:
        model, inputs = build(self.network)
        sparse = self.sparsify(self.network, model, inputs, seed=5)
        again = Plan.from_json(sparse.plan.to_json())
        assert again == sparse.plan
        small = apply(model, again)
        assert holds(small, again.patterns) is None
        assert verify(model, again, inputs, small=small).exact
        original = dict(model.named_parameters())
        for name, weight in small.named_parameters():
            mask = again.patterns[name].mask if name in again.patterns else torch.ones_like(weight) > 0
            assert torch.equal(weight, original[name] * mask)
        made_by = json.loads(sparse.plan.to_json())["made_by"]
        assert made_by["sparse_method"] == self.method
        assert made_by["weight_sparsity"] == 0.6
        assert made_by["seed"] == 5

    def test_the_same_seed_gives_the_same_plan_and_weights(self) -> None:
        first, second = (self.sparsify(self.network, *build(self.network), seed=3) for _ in range(2))
        assert first.plan.to_json() == second.plan.to_json()
        _assert_equal(first.network, second.network)

    def test_model_and_random_state_are_untouched(self) -> None:
        model, inputs = build(self.network)
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        model(inputs).sum().backward()
        optimizer.step()
        before = _everything(model, optimizer)
        state = torch.get_rng_state()
        sparse = self.sparsify(self.network, model, inputs)
        after = _everything(model, optimizer)
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert all(m.training for m in model.modules())
        assert all(p.requires_grad for p in (*model.parameters(), *sparse.network.parameters()))
        assert torch.equal(torch.get_rng_state(), state)
        own = {p.data_ptr() for p in model.parameters()}
        assert own.isdisjoint(p.data_ptr() for p in sparse.network.parameters())

    def test_only_weights_in_scope_become_sparse(self) -> None:
        model, inputs = build(self.network)
        first, *others = (layer.tensor for layer in capture(model, inputs).weights)
        sparse = self.sparsify(self.network, model, inputs, scope=Scope(exclude=(first,)))
        assert set(sparse.plan.patterns) == set(others)
        tensors = dict(sparse.network.named_parameters())
        assert bool((tensors[first] != 0).all())
        if not self._info.trains:
            touched = set(sparse.plan.patterns)
            assert all(torch.equal(tensors[n], t) for n, t in model.named_parameters() if n not in touched)
        with pytest.raises(ScopeError, match="matches no layer or weight"):
            self.sparsify(self.network, model, inputs, scope=Scope(include=("nowhere",)))

    def test_weights_that_stay_keep_their_values_if_nothing_is_trained(self) -> None:
        if self._info.trains:
            return
        model, inputs = build(self.network)
        sparse = self.sparsify(self.network, model, inputs)
        original = dict(model.named_parameters())
        for name, weight in sparse.network.named_parameters():
            mask = sparse.plan.patterns[name].mask if name in sparse.plan.patterns else True
            assert torch.equal(weight, original[name] * mask)

    def test_nothing_leaves_at_sparsity_zero(self) -> None:
        model, inputs = build(self.network)
        sparse = self.sparsify(self.network, model, inputs, sparsity=0.0)
        assert sparse.plan.patterns
        assert all(s.mask.all() for s in sparse.plan.patterns.values())
        assert sparse.weight_sparsity == 0
        if not self._info.trains:
            _assert_equal(sparse.network, model)

    @pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
    def test_a_sparsity_out_of_range_is_refused(self, sparsity: float) -> None:
        with pytest.raises(InputError, match="must be at least 0 and below 1"):
            self.sparsify(self.network, *build(self.network), sparsity=sparsity)

    def test_a_sparsity_out_of_reach_names_what_can_be_reached(self) -> None:
        model, inputs = build("flatten")
        with pytest.raises(InputError, match=r"leave 0\.0000 to 0\.9\d+ of"):
            self.sparsify("flatten", model, inputs, sparsity=0.99999)

    def test_given_sparsities_are_met_one_by_one(self) -> None:
        model, inputs = build("plain")
        wanted = {"conv1": 0.2, "conv2": 0.7, "conv3": 0.5, "head": 0.0}
        sparsities = {f"{name}.weight": s for name, s in wanted.items()}
        sparse = self.sparsify("plain", model, inputs, sparsity=None, sparsities=sparsities)
        for name, structure in sparse.plan.patterns.items():
            assert abs(structure.sparsity - sparsities[name]) * structure.mask.numel() < 1

    def test_channels_of_a_plan_leave_first(self) -> None:
        model, inputs = build(self.network)
        channels = prune(model, inputs, budget=Budget(macs=0.6))
        sparse = self.sparsify(self.network, model, inputs, plan=channels)
        assert sparse.plan.removed == channels.removed
        shapes = {n: tuple(p.shape) for n, p in apply(model, channels).named_parameters()}
        assert all(s.shape == shapes[n] for n, s in sparse.plan.patterns.items())
        assert {n: tuple(p.shape) for n, p in sparse.network.named_parameters()} == shapes
        assert holds(sparse.network, sparse.plan.patterns) is None
        again = Plan.from_json(sparse.plan.to_json())
        assert holds(apply(model, again), again.patterns) is None
        assert verify(model, again, inputs).exact

    def test_averaged_weights_have_the_structures_too(self) -> None:
        if not self._info.trains:
            return
        model, inputs = build(self.network)
        training = replace(QUICK, ema=0.9)
        for pattern in (SINGLE_WEIGHTS, "unified:4x4"):
            sparse = self.sparsify(self.network, model, inputs, training=training, pattern=pattern)
            assert holds(sparse.network, sparse.plan.patterns) is None
        plain = self.sparsify(self.network, model, inputs)
        assert not torch.equal(sparse.network.head.weight, plain.network.head.weight)

    def test_after_an_interruption_the_same_plan_comes_out(self) -> None:
        if not self._info.needs_data:
            return
        model, inputs = build(self.network)
        expected = self.sparsify(self.network, *build(self.network))
        with pytest.raises(KeyboardInterrupt):
            self.sparsify(self.network, model, inputs, data=Interrupted(self.network, after=0))
        assert self.sparsify(self.network, model, inputs).plan.to_json() == expected.plan.to_json()

    @pytest.mark.parametrize("pattern", [SINGLE_WEIGHTS, "unified:4x4"])  # zeros, and signs as well
    def test_a_resumed_run_gives_the_same_plan_and_the_same_weights(
        self, tmp_path: Path, pattern: str
    ) -> None:
        if not self._info.trains:
            return
        model, inputs = build(self.network)
        expected = self.sparsify(self.network, model, inputs, pattern=pattern)
        every_step = replace(QUICK, checkpoint_steps=1)
        for stop in self.stops:
            kept: dict[str, Any] = {
                "training": every_step,
                "checkpoint_dir": tmp_path / str(stop),
                "pattern": pattern,
            }
            with pytest.raises(KeyboardInterrupt):
                self.sparsify(self.network, model, inputs, data=Interrupted(self.network, after=stop), **kept)
            resumed = self.sparsify(self.network, model, inputs, resume=True, **kept)
            assert resumed.plan.to_json() == expected.plan.to_json()
            _assert_equal(resumed.network, expected.network)
            assert [r.loss for r in resumed.history] == [r.loss for r in expected.history]

    def test_a_loss_that_becomes_nan_is_named(self) -> None:
        if not self._info.needs_data:
            return
        model, inputs = build(self.network)
        bad = 2 if self._info.trains else 0
        calls = iter(range(100))

        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            value = nn.functional.cross_entropy(outputs, targets)
            return value * (float("nan") if next(calls) == bad else 1.0)

        error = DivergedError if self._info.trains else InputError
        message = "step 2 " if self._info.trains else r"calibration batch 0 must be one finite number.* nan"
        with pytest.raises(error, match=message):
            self.sparsify(self.network, model, inputs, loss=loss, training=replace(QUICK, log_every=50))

    def test_missing_data_is_asked_for(self) -> None:
        model, inputs = build(self.network)
        if self._info.needs_data:
            with pytest.raises(InputError, match="give data="):
                self.sparsify(self.network, model, inputs, data=None)
        else:
            assert self.sparsify(self.network, model, inputs, data=None).weight_sparsity > 0.5

    def test_wrong_options_are_refused_with_the_valid_range(self) -> None:
        model, inputs = build(self.network)
        assert set(rules(self._kind)) == {f.name for f in fields(self._kind)}
        for option, value, rule in wrong_values(self._kind):
            if rule.accepts(value):  # words that mean something: "auto"
                continue
            with pytest.raises(InputError) as caught:
                self.sparsify(self.network, model, inputs, options={option: value})
            assert option in str(caught.value)
            assert str(rule) in str(caught.value)

    def test_an_unknown_option_lists_close_names(self) -> None:
        model, inputs = build(self.network)
        for option in [f.name for f in fields(self._kind)] or ["thing"]:
            with pytest.raises(InputError, match=f"has no option '{option}s'"):
                self.sparsify(self.network, model, inputs, options={option + "s": 1})

    @property
    def _kind(self) -> type[SparseMethod]:
        return sparse_methods.get(self.method)

    @property
    def _info(self) -> Any:
        return sparse_methods.info(self.method)


def _assert_equal(a: nn.Module, b: nn.Module) -> None:
    expected = b.state_dict()
    assert a.state_dict().keys() == expected.keys()
    assert all(torch.equal(t, expected[name]) for name, t in a.state_dict().items())
