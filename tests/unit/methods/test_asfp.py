"""ASFP is soft filter pruning with a rate that rises."""

from __future__ import annotations

import torch

from billhook import Budget, shrink
from billhook.graph import verify
from billhook.methods import Problem
from billhook.methods.asfp import Asfp
from billhook.methods.soft import Soft, SoftCallback
from billhook.train import FitConfig
from tests.networks import batches, build

TRAINING = FitConfig(epochs=8, lr=0.02, precision="32-true")


def test_it_is_soft_pruning_with_another_default() -> None:
    model, inputs = build("residual")
    settings = {"budget": Budget(macs=0.5), "data": batches("residual"), "training": TRAINING}
    one = shrink(model, inputs, method="asfp", **settings)
    other = shrink(model, inputs, method="soft", options={"rate_schedule": "asymptotic"}, **settings)
    assert one.plan.keep.keys() == other.plan.keep.keys()
    assert all((one.plan.keep[name] == keep).all() for name, keep in other.plan.keep.items())
    weights = other.model.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in one.model.state_dict().items())
    assert Soft().rate_schedule == "constant"


def test_few_units_are_zeroed_at_first_and_all_at_the_end() -> None:
    model, inputs = build("residual")
    seen: list[int] = []

    class Watched(SoftCallback):
        def hold_round(self, context, counts, *, last):
            seen.append(counts["inner1"])
            return super().hold_round(context, counts, last=last)

    class WatchedAsfp(Asfp):
        def callback(self, problem):
            return Watched(self, problem)

    problem = Problem(
        model, inputs, Budget(macs=0.3), data=batches("residual"), training=TRAINING, round_to=1
    )
    outcome = WatchedAsfp(rounds=16, until=1).run(problem)
    final = outcome.plan.counts["inner1"]
    assert len(seen) == 16
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == final < seen[0] < 24
    # After 2 of 16 rounds, an eighth of the run, three quarters of what will leave, rounded down.
    assert seen[1] in (24 - int(0.75 * (24 - final)), 25 - int(0.75 * (24 - final)))
    assert verify(outcome.model, outcome.plan, inputs).exact
