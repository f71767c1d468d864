from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from billhook.graph.patterns import parse_pattern
from billhook.methods.sparse.gradual import Gradual, GradualCallback
from billhook.train import Callback, FitConfig, StepContext, fit
from tests.networks import batches, build
from tests.unit.methods.sparse.problems import problem

TRAINING = FitConfig(steps=20, lr=0.02, precision="32-true")
NAMES = ("conv1.weight", "conv2.weight", "conv3.weight", "head.weight")


class _Watch(Callback):
    """Counts zeros after every step."""

    def __init__(self) -> None:
        self.zeros: list[list[torch.Tensor]] = []

    def after_step(self, context: StepContext) -> None:
        self.zeros.append([context.model.get_parameter(n).detach() == 0 for n in NAMES])

    @property
    def sparsity(self) -> list[float]:
        return [float(torch.cat([z.reshape(-1) for z in step]).double().mean()) for step in self.zeros]


def _watched(method: Gradual, sparsity: float = 0.8) -> tuple[_Watch, nn.Module]:
    model, inputs = build("plain")
    posed = problem(model, sparsity, inputs=inputs, data=batches("plain"))
    watch = _Watch()
    callbacks = [GradualCallback(method, posed), watch]
    fit(model, batches("plain"), config=TRAINING, callbacks=callbacks, progress=False)
    return watch, model


@pytest.mark.parametrize("schedule", ["cubic", "linear"])
def test_the_sparsity_follows_the_schedule(schedule: str) -> None:
    watch, _ = _watched(Gradual(rounds=5, until=0.5, schedule=schedule))
    for step, found in enumerate(watch.sparsity):
        done = min(1.0, (step // 2 + 1) / 5)
        wanted = 0.8 * (done if schedule == "linear" else 1 - (1 - done) ** 3)
        assert found == pytest.approx(wanted, abs=1e-3)


def test_zeros_stay_once_the_pruning_is_over() -> None:
    watch, model = _watched(Gradual(rounds=5, until=0.5))
    for earlier, later in zip(watch.zeros[10], watch.zeros[-1], strict=True):
        assert torch.equal(earlier, later)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_large_weights_of_the_beginning_may_leave_and_what_has_left_stays_away() -> None:
    watch, _ = _watched(Gradual(rounds=10, until=1.0))
    for earlier, later in zip(watch.zeros, watch.zeros[1:], strict=False):
        assert all(bool((b | ~a).all()) for a, b in zip(earlier, later, strict=True))
    model, inputs = build("plain")
    at_once = problem(model, 0.8, inputs=inputs).by_magnitude(dict(model.named_parameters()))
    last = {name: ~z for name, z in zip(NAMES, watch.zeros[-1], strict=True)}
    assert any(not torch.equal(at_once[n].mask, last[n]) for n in NAMES)


def test_given_sparsities_grow_together() -> None:
    model, inputs = build("plain")
    wanted = dict(zip(NAMES, (0.2, 0.9, 0.6, 0.0), strict=True))
    posed = problem(model, 0.0, inputs=inputs, data=batches("plain"), training=TRAINING, sparsities=wanted)
    outcome = Gradual(rounds=4).run(replace(posed, seed=3))
    for name, structure in outcome.structures.items():
        assert abs(structure.sparsity - wanted[name]) * structure.mask.numel() < 1


def test_blocks_on_the_diagonal_come_in_stages() -> None:
    model, inputs = build("plain")
    blocks = {"conv2.weight": parse_pattern("block_diagonal:blocks=4")}
    posed = replace(problem(model, 0.75, inputs=inputs, data=batches("plain")), patterns=blocks)
    watch = _Watch()
    method = Gradual(rounds=5, until=0.5, schedule="linear")
    fit(
        model,
        batches("plain"),
        config=TRAINING,
        callbacks=[GradualCallback(method, posed), watch],
        progress=False,
    )
    middle = [
        float(zeros[1].double().mean()) for zeros in watch.zeros
    ]  # of conv2, whose blocks are all equal
    assert sorted(set(middle)) == [0.0, 0.5, 0.75]
    assert middle == sorted(middle)
