"""Dynamic filter pruning: what comes back, what stays away, how the rate rises, and what may freeze it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import billhook
from billhook import Budget
from billhook.errors import BudgetError, InputError
from billhook.fuse.copies import ChannelCopy
from billhook.graph import groups, verify
from billhook.methods import Outcome, Problem
from billhook.methods.fupruner import Fupruner, FuprunerCallback, steps_of
from billhook.train import CallbackDriver, FitConfig
from tests.contract.method_contract import Interrupted
from tests.networks import batches, build

TRAINING = FitConfig(epochs=4, lr=0.02, precision="32-true", log_every=1)
STILL = FitConfig(epochs=20, lr=1e-9, weight_decay=0, precision="32-true")  # so that weights can be foretold


class Loop:
    """A training loop of somebody's own, step by step."""

    def __init__(self, network: str, method: Fupruner, *, steps: int, **changes: Any) -> None:
        self.model, inputs = build(network)
        self.model.train()
        problem = Problem(self.model, inputs, **{"budget": Budget(macs=0.5), "round_to": 1, **changes})
        callback = method.callback(problem)
        assert isinstance(callback, FuprunerCallback)
        self.callback = callback
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.driver = CallbackDriver([self.callback], self.model, self.optimizer, total_steps=steps)
        (self.batch,) = batches(network, 1)

    def step(self) -> list[bool]:
        """Make a step; return which units of the first group its forward pass did not read."""
        self.driver.before_step(*self.batch)
        silent = unread(self.model)
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(self.batch[0]), self.batch[1]).backward()
        self.optimizer.step()
        self.driver.after_step()
        return silent


def unread(model: nn.Module) -> list[bool]:
    weight = model.get_parameter("conv2.weight").detach()
    return (weight.abs().amax((0, 2, 3)) == 0).tolist()


def test_soft_silenced_units_have_a_norm_again_after_an_epoch_of_training() -> None:
    loop = Loop("plain", Fupruner(interval=1, schedule="constant"), steps=6)
    assert not any(loop.step())
    loop.driver.after_epoch()  # an epoch of one step: from here on there is a selection before every step
    silent = loop.step()
    assert sum(silent) == 16 - loop.callback.decided.counts["conv1"] > 0
    norms = loop.model.get_parameter("conv2.weight").detach().abs().amax((0, 2, 3))
    assert (norms[torch.tensor(silent)] > 0).all()


def test_hard_silenced_units_never_come_back() -> None:
    method = Fupruner(interval=1, dynamic="hard", until=1.0)
    loop = Loop("plain", method, steps=8)
    before = [False] * 16
    history = []
    for _ in range(8):
        silent = loop.step()
        assert all(now for now, then in zip(silent, before, strict=True) if then)
        assert unread(loop.model) == silent  # training has not touched them
        loop.driver.after_epoch()
        history.append(sum(silent))
        before = silent
    (plan,) = loop.driver.finish()
    assert plan is not None
    assert not plan.keep["conv1"][np.array(before)].any()
    assert history[0] == 0 < history[1] < history[-1]


def _run(network: str, method: Fupruner, **changes: Any) -> Outcome:
    model, inputs = build(network)
    settings: dict[str, Any] = {
        "budget": Budget(macs=0.6),
        "data": batches(network),
        "training": TRAINING,
        "round_to": 1,
    }
    return method.run(Problem(model, inputs, **settings | changes))


@pytest.mark.parametrize(
    ("network", "dynamic"), [("residual", "soft"), ("residual", "hard"), ("depthwise_squeeze", "soft")]
)
def test_the_silenced_and_the_smaller_network_agree_and_the_budget_is_met(network: str, dynamic: str) -> None:
    outcome = _run(network, Fupruner(dynamic=dynamic))
    _, inputs = build(network)
    whole, small = outcome.model.eval(), outcome.small().eval()
    assert outcome.plan.removed
    assert verify(whole, outcome.plan, inputs).exact
    assert torch.allclose(small(inputs), whole(inputs), atol=1e-5)
    macs = [billhook.cost(n, inputs).macs for n in (small, whole)]
    assert macs[0] <= 0.6 * macs[1]


def test_an_interval_in_epochs_is_a_number_of_steps() -> None:
    assert [steps_of(i, 390) for i in (1, 0.5, 0.1, 2, 0.001)] == [390, 195, 39, 780, 1]


def test_the_rate_rises_along_its_schedule() -> None:
    """20 steps, until=1, 16 units of which 8 leave: 8 · (1 − e^(−κt)) / (1 − e^(−κ)), rounded down.

    A selection before steps 5, 10, 15: κt = 2.77, 5.54, 8.32 takes 7.5, 7.97, 7.998 units. With until=0.5 the
    first is at t = 1/2, where 7.97 of 8 are out, and from the second on all are.
    """
    expected = {("asymptotic", 1.0): [7, 7, 7], ("asymptotic", 0.5): [7, 8, 8], ("constant", 1.0): [8, 8, 8]}
    for (schedule, until), gone in expected.items():
        method = Fupruner(interval=5, schedule=schedule, until=until)
        loop = Loop(
            "plain", method, steps=20, scope=billhook.Scope(include=("conv1",)), budget=Budget(macs=0.6)
        )
        loop.step()
        loop.driver.after_epoch()
        size, kept = 16, loop.callback.decided.counts["conv1"]
        assert size - kept == 8
        history = [0, *(sum(loop.step()) for _ in range(19))]
        assert [history[at] for at in (5, 10, 15)] == gone
        assert all(history[at] == 0 for at in range(20) if at not in (5, 10, 15))


def test_without_an_end_of_an_epoch_the_last_selection_decides_alone() -> None:
    loop = Loop("plain", Fupruner(interval=0.5), steps=4)
    assert not any(any(loop.step()) for _ in range(4))
    (plan,) = loop.driver.finish()
    assert plan is not None
    assert unread(loop.model) == (~plan.keep["conv1"]).tolist()


class Identity(nn.Module):
    """Eight classes, one unit for each; unit k is weaker than unit k − 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(8, 8, 1, bias=False), nn.Linear(8, 8, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.diag(torch.arange(8.0, 0, -1))[:, :, None, None])
            self.head.weight.copy_(torch.eye(8))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(x).relu().mean((2, 3)))
        return logits


X, Y = torch.eye(8)[:, :, None, None], torch.arange(8)


def _identity(**options: Any) -> Outcome:
    """Prune to half of the MACs, 4 of the 8 units: without n units the accuracy is 1 − n / 8."""
    problem = Problem(
        Identity(), X[:1], Budget(macs=0.5), data=[(X, Y)], training=STILL, round_to=1, validation=[(X, Y)]
    )
    return Fupruner(interval=1, until=1.0, **options).run(problem)


@pytest.mark.parametrize("dynamic", ["soft", "hard"])
def test_a_drop_that_is_too_large_freezes_the_rate_and_names_what_was_reached(
    dynamic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Selections at t = 1/20, 2/20, 3/20 silence 1.7, 2.7 and 3.2 of 4 units; three cost 37.5 points.

    So the rate of step 3 is found out before step 4.
    """
    with pytest.raises(BudgetError, match=r"max_drop asks for .* at least 70.00%, .* it is 50.00%") as caught:
        _identity(max_drop=30, dynamic=dynamic)
    assert caught.value.reachable == {"macs": 8 * 6 + 6 * 8}
    assert "macs 96 (75.0%) of the original. Raise max_drop or the bound" in str(caught.value)
    said = [r.message for r in caplog.records if r.name == "billhook"]
    assert len(said) == 1
    assert said[0].startswith(
        "max_drop=30 is exceeded at step 4 with 81 % of the units that have to leave; the rate freezes at 67"
    )


def test_at_the_bound_that_was_named_the_accuracy_holds() -> None:
    problem = Problem(Identity(), X[:1], Budget(macs=96), data=[(X, Y)], validation=[(X, Y)], round_to=1)
    outcome = Fupruner(max_drop=30).run(replace(problem, training=STILL))
    assert outcome.plan.counts == {"conv": 6}
    assert outcome.plan.made_by["accuracy"] == {"before": 1.0, "after": 0.75}


def test_a_drop_of_exactly_max_drop_is_allowed() -> None:
    assert _identity(max_drop=50).plan.made_by["accuracy"] == {"before": 1.0, "after": 0.5}


def test_a_rate_that_is_not_accepted_is_taken_back_with_its_weights() -> None:
    model = Identity()
    problem = Problem(model, X[:1], Budget(macs=0.5), data=[(X, Y)], validation=[(X, Y)], round_to=1)
    callback = Fupruner(interval=1, until=1.0, max_drop=30, dynamic="hard").callback(problem)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    driver = CallbackDriver([callback], model, optimizer, total_steps=20)
    silent = []
    for _ in range(6):
        driver.before_step(X, Y)
        driver.after_step()
        silent.append((model.head.weight.detach().abs().amax(0) == 0).nonzero().flatten().tolist())
        driver.after_epoch()
    assert silent == [[], [7], [6, 7], [5, 6, 7], [6, 7], [6, 7]]
    assert torch.equal(model.head.weight.detach(), torch.diag(torch.tensor([1.0] * 6 + [0.0] * 2)))


def test_looking_at_the_accuracy_changes_nothing() -> None:
    """With a requirement that always holds, weights and plan are those of a run without one."""
    free, watched = (
        _run("residual", Fupruner(max_drop=m), validation=batches("residual")) for m in (None, 100)
    )
    assert all(np.array_equal(free.plan.keep[name], keep) for name, keep in watched.plan.keep.items())
    weights = free.model.state_dict()
    assert all(torch.equal(t, weights[name]) for name, t in watched.model.state_dict().items())


def test_an_accuracy_requirement_asks_for_held_out_data_at_once() -> None:
    model, inputs = build("plain")
    problem = Problem(model, inputs, Budget(macs=0.5), data=batches("plain"))
    with pytest.raises(InputError, match="max_drop=1 is judged on held-out data; give validation="):
        Fupruner(max_drop=1).run(problem)
    with pytest.raises(InputError, match="give validation="):
        billhook.pruning_callback(
            model, inputs, budget=Budget(macs=0.5), method="fupruner", options={"max_drop": 1}
        )
    Fupruner(max_drop=1).check(problem)  # a recipe brings its own


def test_validation_reaches_the_method_from_prune_shrink_and_the_callback() -> None:
    model, inputs = build("plain")
    given: dict[str, Any] = {
        "budget": Budget(macs=0.5),
        "method": "fupruner",
        "options": {"max_drop": 100},
        "data": batches("plain"),
        "validation": batches("plain"),
    }
    plan = billhook.prune(model, inputs, training=TRAINING, **given)
    assert billhook.shrink(model, inputs, training=TRAINING, **given).plan == plan
    assert 0 <= plan.made_by["accuracy"]["after"] <= 1
    assert billhook.pruning_callback(model, inputs, **given).problem.validation is given["validation"]


@pytest.mark.parametrize(("allocator", "round_to"), [("uniform", 8), ("global", 1), ("global", 8)])
def test_no_group_loses_more_than_the_rate(allocator: str, round_to: int) -> None:
    network = "residual"
    method = Fupruner(allocator=allocator, rate=0.5)
    training = replace(TRAINING, epochs=1)
    plan = _run(network, method, budget=Budget(macs=0.75), round_to=round_to, training=training).plan
    sizes = {g.id: g.size for g in groups(*build(network))}
    assert plan.removed
    assert all(lost <= 0.5 * sizes[name] for name, lost in plan.removed.items())
    assert plan.made_by["reached"]["macs"] <= 0.75 * plan.made_by["original"]["macs"]


def test_a_rate_below_what_the_budget_needs_is_named() -> None:
    with pytest.raises(
        BudgetError, match=r"rate=0.1 lets no group lose more than 10% .* Raise rate, or"
    ) as caught:
        _run("residual", Fupruner(rate=0.1))
    assert caught.value.reachable["macs"] > 0


@pytest.mark.parametrize("options", [{"dynamic": "hard", "max_drop": 100}, {"criterion": "taylor"}])
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(options: dict[str, Any], tmp_path: Path) -> None:
    model, inputs = build("residual")
    held_out = batches("residual", 1)
    every_step = replace(TRAINING, epochs=4, checkpoint_steps=1)
    problem = Problem(model, inputs, Budget(macs=0.6), validation=held_out, data=batches("residual"))
    method = Fupruner(interval=0.5, **options)
    expected = method.run(replace(problem, training=every_step))
    # Criteria and batch norms read the data as well, so these stops lie anywhere in an epoch.
    for stop in (3, 5, 7):
        kept = replace(problem, training=every_step, checkpoint_dir=tmp_path / str(stop))
        with pytest.raises(KeyboardInterrupt):
            method.run(replace(kept, data=Interrupted("residual", after=stop)))
        resumed = method.run(replace(kept, resume=True))
        assert resumed.plan == expected.plan
        weights = expected.model.state_dict()
        assert all(torch.equal(t, weights[n]) for n, t in resumed.model.state_dict().items())


class Shortcut(nn.Module):
    """A block whose shortcut is a list of copied channels, and a group of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.conv2, self.head = nn.Conv2d(12, 8, 3, padding=1), nn.Linear(8, 5)
        self.carry = ChannelCopy(torch.arange(8), torch.ones(8), torch.arange(8.0, 0, -1))
        self.back = ChannelCopy(torch.arange(8), torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = (self.conv2(self.conv1(x).relu()) + self.back(self.carry(x))).relu()
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def _shortcut() -> tuple[Shortcut, Tensor, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    data = [(torch.randn(8, 3, 8, 8), torch.randint(5, (8,))) for _ in range(4)]
    return Shortcut().eval(), data[0][0], data


@pytest.mark.parametrize(
    ("criterion", "dynamic"), [("l1", "soft"), ("l2", "hard"), ("fpgm", "soft"), ("taylor", "soft")]
)
def test_copies_are_a_group_that_is_silent_before_it_leaves(criterion: str, dynamic: str) -> None:
    model, inputs, data = _shortcut()
    problem = Problem(model, inputs, Budget(macs=0.5), data=data, training=TRAINING, round_to=1)
    outcome = Fupruner(criterion=criterion, dynamic=dynamic).run(problem)
    whole, small = outcome.model.eval(), outcome.small().eval()
    gone = ~torch.from_numpy(outcome.plan.keep["carry"])
    assert gone.any()
    assert torch.equal(whole.get_buffer("back.gate"), (~gone).float())
    assert torch.equal(whole.get_buffer("carry.gate").bool(), torch.from_numpy(outcome.plan.keep["stem"]))
    assert torch.allclose(small(inputs), whole(inputs), atol=1e-6)


def test_copies_with_the_smallest_magnitude_leave() -> None:
    model, inputs, data = _shortcut()
    problem = Problem(model, inputs, Budget(macs=0.5), data=data, training=STILL, round_to=1)
    plan = Fupruner().run(problem).plan
    kept = plan.counts["carry"]
    assert plan.keep["carry"].tolist() == [True] * kept + [False] * (8 - kept)


def test_a_soft_copy_that_was_silent_may_come_back() -> None:
    model, inputs, data = _shortcut()
    problem = Problem(model, inputs, Budget(macs=0.5), data=data, round_to=1)
    callback = Fupruner(criterion="taylor", interval=1, schedule="constant").callback(problem)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    driver = CallbackDriver([callback], model, optimizer, total_steps=20)
    driver.before_step(*data[0])
    driver.after_epoch()
    driver.before_step(*data[0])
    first = model.back.gate.clone()
    assert (first == 0).any()
    with torch.no_grad():
        model.conv2.weight.neg_()  # another network, which needs other copies
        model.head.weight.copy_(torch.randn(5, 8, generator=torch.Generator().manual_seed(3)))
    driver.before_step(*data[0])
    assert ((first == 0) & (model.back.gate == 1)).any()
    assert (model.back.gate == 0).sum() == (first == 0).sum()
