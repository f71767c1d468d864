from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from billhook.graph.structure import Structure
from billhook.sparse.holding import Held, holds
from billhook.train import Callback, FitConfig, StepContext, fit
from billhook.train.holding import HoldPatterns
from tests.unit.sparse.test_holding import structures_of
from tests.unit.train.tiny import EXACT, StopAt, TinyBatches, assert_same_weights, tiny_net

INPUTS = torch.zeros(2, 2, 6, 6)
CONFIGS = {
    "sgd": replace(EXACT, momentum=0.9, weight_decay=0.01),
    "adamw": replace(EXACT, optimizer="adamw", lr=0.01, weight_decay=0.1),
    "contiguous": replace(EXACT, channels_last=False, clip=0.5),
}
PATTERNS = ["1x1", "4x1", "unified:4x4"]


class _Watch(Callback):
    """Notes after which steps a structure is broken."""

    def __init__(self, structures: dict[str, Structure]) -> None:
        self.structures, self.broken, self.steps = structures, [], 0

    def after_step(self, context: StepContext) -> None:
        self.steps += 1
        if (name := holds(context.model, self.structures)) is not None:
            self.broken.append((context.step, name))


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_structures_last_from_the_first_step_to_the_end(config: FitConfig, pattern: str) -> None:
    model = tiny_net()
    structures = structures_of(model, INPUTS, pattern)
    watch = _Watch(structures)
    config = replace(config, epochs=20)
    fit(model, TinyBatches(), config=config, callbacks=[HoldPatterns(structures), watch], progress=False)
    assert watch.steps == 100
    assert watch.broken == []
    assert holds(model, structures) is None
    plain = tiny_net()
    Held(plain, structures)
    assert all(not torch.equal(model.get_parameter(n), plain.get_parameter(n)) for n in structures)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("stop", [1, 3, 7])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, stop: int, pattern: str) -> None:
    structures = structures_of(tiny_net(), INPUTS, pattern)
    config = replace(EXACT, checkpoint_steps=1, ema=0.9)
    expected = tiny_net()
    fit(
        expected,
        TinyBatches(),
        config=config,
        callbacks=[HoldPatterns(structures), StopAt(None)],
        progress=False,
    )
    stopped = tiny_net()
    settings = {"config": config, "checkpoint_dir": tmp_path, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, TinyBatches(), callbacks=[HoldPatterns(structures), StopAt(stop)], **settings)
    resumed = tiny_net(seed=9)
    callbacks = [HoldPatterns(structures), StopAt(None)]
    fit(resumed, TinyBatches(), callbacks=callbacks, resume=True, **settings)
    assert_same_weights(resumed, expected)
    assert holds(resumed, structures) is None
    again = tiny_net(seed=8)  # from a run that is over
    fit(again, TinyBatches(), callbacks=[HoldPatterns(structures), StopAt(None)], resume=True, **settings)
    assert_same_weights(again, expected)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("imposed", [True, False])
def test_averaged_weights_have_the_structures(pattern: str, imposed: bool) -> None:
    model = tiny_net()
    structures = structures_of(model, INPUTS, pattern)
    if imposed:
        Held(model, structures)
    raw = tiny_net()
    for network, ema in ((model, 0.99), (raw, 0.0)):
        config = replace(EXACT, ema=ema)
        fit(network, TinyBatches(), config=config, callbacks=[HoldPatterns(structures)], progress=False)
        assert holds(network, structures) is None
    assert not torch.equal(model.get_parameter("4.weight"), raw.get_parameter("4.weight"))


def test_nothing_is_decided() -> None:
    model = tiny_net()
    held = HoldPatterns(structures_of(model, INPUTS, "1x1"))
    assert fit(model, TinyBatches(), config=EXACT, callbacks=[held], progress=False).plan is None
