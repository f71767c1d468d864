from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import billhook
from billhook.allocate.budget import Budget
from billhook.errors import InputError, NameNotFoundError, ScopeError, VerifyError
from billhook.fuse import ChannelCopy, Fusion, fuse
from billhook.graph import Plan, Scope, apply, cost
from billhook.methods import _prune, prune, shrink
from billhook.results import Check
from billhook.train import FitConfig
from tests.networks import NETWORKS, batches, build
from tests.residual import residual

HALF = Budget(macs=0.5)


def test_three_lines_make_a_smaller_network() -> None:
    model, inputs = build("residual")
    plan = billhook.prune(model, inputs, method="fpgm", budget=HALF)
    small = billhook.apply(model, plan)
    assert billhook.cost(small, inputs).macs <= 0.5 * billhook.cost(model, inputs).macs
    assert small(inputs).shape == model(inputs).shape


def test_a_criterion_is_one_shot_pruning_with_it() -> None:
    model, inputs = build("residual")
    short = prune(model, inputs, method="l1", options={"members": "out"}, allocator="uniform", budget=HALF)
    options = {"criterion": "l1", "options": {"members": "out"}, "allocator": "uniform"}
    long = prune(model, inputs, method="one_shot", options=options, budget=HALF)
    assert short.counts == long.counts
    assert short.diff(long) == {}


def test_the_plan_records_everything_needed_to_make_it_again() -> None:
    model, inputs = build("plain")
    plan = prune(model, inputs, budget=HALF, scope=Scope(exclude=("conv3",)), round_to=2, seed=7)
    record = plan.made_by
    assert record["billhook"] == billhook.__version__
    assert {k: record[k] for k in ("method", "seed", "round_to", "backend")} == {
        "method": "l2",
        "seed": 7,
        "round_to": 2,
        "backend": "onnxruntime",
    }
    assert record["scope"] == {"include": ["*"], "exclude": ["conv3"]}
    assert record["cost"]["before"] == cost(model, inputs).to_dict()
    assert record["cost"]["after"] == cost(model, inputs, plan).to_dict()


def test_automatic_rounding_asks_the_backend() -> None:
    model, inputs = build("plain")
    counts = prune(model, inputs, budget=HALF).counts
    likes = [4, 8, 12, 16]  # and 32, 48, …: what ONNX Runtime runs fast
    assert counts["conv1"] in likes
    assert counts["conv2"] in [*likes, 24]
    assert counts["conv3"] in [*likes, 32]


def test_mixing_opens_groups_that_layer_norm_freezes() -> None:
    model, inputs = build("attention")
    plan = prune(model, inputs, budget=HALF, mixing="allow", round_to=1)
    assert "patches" in plan.removed
    assert apply(model, plan)(inputs).shape == (2, 5)


def test_data_and_loss_reach_the_criterion() -> None:
    model, inputs = build("plain")
    seen = []

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(targets)
        return outputs.square().sum()

    prune(model, inputs, method="taylor", data=batches("plain"), loss=loss, budget=HALF)
    assert len(seen) == 2


def test_several_bounds_hold_together() -> None:
    model, inputs = build("flatten")
    plan = prune(model, inputs, budget=Budget(macs=0.6, params=0.4, size="20kB"))
    before, after = cost(model, inputs), cost(model, inputs, plan)
    assert after.macs <= 0.6 * before.macs
    assert after.params <= 0.4 * before.params
    assert after.bytes <= 20_000


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "l22"}, NameNotFoundError, "unknown method 'l22'; did you mean 'l2'"),
        ({"allocator": "gobal"}, NameNotFoundError, "unknown allocator 'gobal'; did you mean 'global'"),
        ({"backend": "onnxrt"}, NameNotFoundError, "unknown backend 'onnxrt'; did you mean 'onnxruntime'"),
        ({"scope": Scope(exclude=("convv*",))}, ScopeError, r"pattern 'convv\*' matches no group"),
        ({"round_to": 0}, InputError, "round_to=0: expected 'auto' or an integer of at least 1"),
        ({"round_to": 2.5}, InputError, "round_to=2.5"),
        ({"round_to": True}, InputError, "round_to=True"),
        ({"mixing": "maybe"}, InputError, "mixing='maybe'"),
        ({"method": "taylor"}, InputError, "'taylor' learns from data; give data="),
        ({"method": "taylor", "data": [1]}, InputError, "calibration batch 0 is a int; expected a pair"),
        (
            {"options": {"members": "some"}},
            InputError,
            "criterion 'l2': option members='some' must be one of 'all', 'out'",
        ),
    ],
)
def test_a_mistake_gets_one_clear_message(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    model, inputs = build("plain")
    with pytest.raises(error, match=message):
        prune(model, inputs, **({"budget": HALF} | arguments))


def test_a_network_that_fails_verification_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(model: nn.Module, plan: object, inputs: object) -> Check:
        return Check(False, False, 0.3, 0.1, 1e-4, first_difference="conv2")

    monkeypatch.setattr(_prune, "verify_plan", fails)
    model, inputs = build("plain")
    with pytest.raises(VerifyError, match=r"differs .* first at layer 'conv2'.*exclude"):
        prune(model, inputs, budget=HALF)
    prune(model, inputs, budget=HALF, verify=False)


@pytest.mark.parametrize("network", NETWORKS)
def test_half_the_parameters_can_leave_every_network(network: str) -> None:
    model, inputs = build(network)
    plan = prune(model, inputs, budget=Budget(params=0.5), round_to=1)
    assert (
        0.45 * cost(model, inputs).params
        <= cost(model, inputs, plan).params
        <= 0.5 * cost(model, inputs).params
    )


def test_a_network_that_is_random_in_eval_mode_is_named_as_such() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(nn.functional.dropout(self.a(x), 0.5, training=True))

    with pytest.raises(VerifyError, match="different results for the same inputs"):
        prune(Noisy(), torch.randn(2, 3, 8, 8), budget=HALF)


def _fused(**changes: Any) -> tuple[nn.Module, torch.Tensor, Plan]:
    model, x = residual("basic")
    arguments: dict[str, Any] = {"budget": HALF, "round_to": 1, "fusion": Fusion(), **changes}
    return model, x, prune(model, x, **arguments)


def test_a_fused_network_is_pruned_block_by_block_and_the_plan_says_what_was_fused() -> None:
    before = {name: t.clone() for name, t in residual("basic")[0].state_dict().items()}
    model, x, plan = _fused()
    assert [f["at"] for f in plan.fusions] == ["layer1.0", "layer1.1", "layer2.0"]
    assert {"layer1.0.conv2", "layer1.1.conv2", "layer1.0.copies"} <= plan.keep.keys()
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    small = apply(model, Plan.from_json(plan.to_json()))
    assert small(x).shape == model(x).shape
    assert cost(small, x).macs <= 0.5 * cost(model, x).macs
    assert plan.made_by["cost"]["before"] == cost(model, x).to_dict()
    assert plan.made_by["budget"] == HALF.to_dict()


@pytest.mark.parametrize("level", ["none", "conservative"])
def test_fusion_that_widens_nothing_leaves_the_plan_as_it_is(level: str) -> None:
    _, _, plan = _fused(fusion=Fusion(level))
    assert plan.fusions == ()
    assert "layer1.1.conv2" not in plan.keep


def test_a_fraction_of_macs_is_one_of_the_original_also_if_fusion_adds_some() -> None:
    model, x, plan = _fused(fusion=Fusion(copies="dense"))
    assert cost(fuse(model, x, Fusion(copies="dense")).network, x).macs > cost(model, x).macs
    assert 0.4 * cost(model, x).macs < cost(apply(model, plan), x).macs <= 0.5 * cost(model, x).macs


def test_a_method_that_changes_weights_returns_the_rewritten_network() -> None:
    model, x = residual("basic")
    data = [(torch.randn(4, 3, 8, 8), torch.arange(4)) for _ in range(2)]
    outcome = shrink(
        model,
        x,
        method="soft",
        data=data,
        budget=HALF,
        round_to=1,
        training=FitConfig(steps=2, precision="32-true"),
        fusion=Fusion(exclude=("layer2*",)),
    )
    assert [f["at"] for f in outcome.plan.fusions] == ["layer1.0", "layer1.1"]
    assert any(isinstance(m, ChannelCopy) for m in outcome.model.modules())
    assert outcome.small()(x).shape == model(x).shape


def test_a_block_that_is_not_there_cannot_be_fused() -> None:
    with pytest.raises(InputError, match=r"fusion pattern 'layer1\.2' matches no place.*did you mean"):
        _fused(fusion=Fusion(include=("layer1.2",)))
