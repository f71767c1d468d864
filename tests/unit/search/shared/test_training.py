"""Shared training of a population, and the objective that comes out of it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from billhook.errors import DivergedError
from billhook.graph import apply
from billhook.graph.graph import make_plan
from billhook.search.shared import training as module
from billhook.search.shared.fresh import fresh
from billhook.search.shared.training import Training, first_channels, shared_weights
from billhook.train import FitConfig, evaluate, fit, recalibrate_batchnorm
from billhook.train.rng import derive_seed
from tests.search import problem

CONFIG = FitConfig(steps=12, lr=0.05, schedule="cosine", warmup=0.0, nesterov=False, precision="32-true")
DENSE = Training(CONFIG, None)
SPARSE = Training(CONFIG, CONFIG, settling=2)


def _searched(name: str = "residual", **given: Any) -> Any:
    return problem(name, round_to=1, pattern="4x1|dense", **given)


@pytest.mark.parametrize("trained", [False, True])
def test_a_population_of_one_without_masks_is_trained_as_by_anybody(tmp_path: Path, trained: bool) -> None:
    searched = _searched()
    space = first_channels(searched.space)
    row = space.lowest + 1
    found = shared_weights(
        searched, space, [row], replace(DENSE, trained=trained), generation=3, folder=tmp_path
    )

    seed = derive_seed(searched.seed, 3)
    plan = make_plan(searched.graph, space.keep(row))
    start = searched.model if trained else fresh(searched.model, seed)
    small = apply(start, plan)
    fit(
        small,
        searched.data,
        config=replace(CONFIG, seed=derive_seed(seed, 1)),
        loss=searched.loss,
        progress=False,
    )
    kept = searched.graph.kept(plan)
    for name, tensor in small.named_parameters():
        masks = kept.tensor(name, tensor.dim())
        used = [slice(None) if m is None else slice(0, int(m.sum())) for m in masks]
        torch.testing.assert_close(found._tensors[name][tuple(used)], tensor.detach(), atol=1e-5, rtol=1e-4)

    recalibrate_batchnorm(small, searched.data, 10)
    expected = evaluate(small, searched.validation, loss=searched.loss)
    result = found.evaluate(np.concatenate([row[: len(space.groups)], space.highest[len(space.groups) :]]))
    # Candidates are judged in bf16 where that is fast.
    assert result.loss == pytest.approx(expected.loss, abs=0.03)
    assert result.accuracy == pytest.approx(expected.accuracy, abs=0.1)


def test_training_together_makes_candidates_better(tmp_path: Path) -> None:
    searched = _searched("plain")
    searched = replace(searched, validation=searched.data, captured=searched.graph)
    space = first_channels(searched.space)
    rows = list(space.random(np.random.default_rng(0), 6))
    few = shared_weights(searched, space, rows, SPARSE, generation=0, folder=tmp_path / "few")
    longer = replace(CONFIG, steps=150)
    both = Training(longer, longer)
    many = shared_weights(searched, space, rows, both, generation=0, folder=tmp_path / "many")
    before, after = (np.mean([o.evaluate(row).loss for row in rows]) for o in (few, many))
    assert after < before - 0.1


def test_the_same_generation_gives_the_same_and_another_another(tmp_path: Path) -> None:
    searched = _searched("plain")
    rows = list(searched.space.random(np.random.default_rng(0), 3))

    def losses(generation: int, folder: str) -> list[float]:
        found = shared_weights(
            searched, searched.space, rows, SPARSE, generation=generation, folder=tmp_path / folder
        )
        return [found.evaluate(row).loss for row in rows]

    first = losses(1, "a")
    assert first == losses(1, "b")
    assert first != losses(2, "c")


class _Killed(BaseException):
    pass


def _interrupt(monkeypatch: pytest.MonkeyPatch, at: Callable[[Any], bool]) -> None:
    """Let the training stop like a process that is killed, where `at(callback's context)`."""
    whole = module.Sampling.before_step

    def before_step(self: Any, context: Any) -> None:
        if at(context):
            raise _Killed
        whole(self, context)

    monkeypatch.setattr(module.Sampling, "before_step", before_step)


@pytest.mark.parametrize("masked", [False, True])
def test_a_training_that_was_killed_goes_on_and_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masked: bool
) -> None:
    searched = _searched("plain")
    rows = list(searched.space.random(np.random.default_rng(0), 3))
    often = replace(CONFIG, checkpoint_steps=2)

    def tensors(folder: str) -> dict[str, torch.Tensor]:
        done = Training(often, often)
        return shared_weights(
            searched, searched.space, rows, done, generation=0, folder=tmp_path / folder
        )._tensors

    expected = tensors("whole")
    with monkeypatch.context() as patch:
        _interrupt(patch, lambda context: context.model.masked == masked and context.step == 7)
        with pytest.raises(_Killed):
            tensors("killed")
    steps: list[int] = []
    with monkeypatch.context() as patch:
        _interrupt(patch, lambda context: bool(steps.append(context.step)))
        found = tensors("killed")
    assert steps[0] == 6
    assert len(steps) == (6 if masked else 6 + 12)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_checkpoints_of_other_generations_and_settings_are_not_used(tmp_path: Path) -> None:
    searched = _searched("plain")
    rows = list(searched.space.random(np.random.default_rng(0), 2))
    for generation, other in ((0, SPARSE), (1, SPARSE), (1, replace(SPARSE, trained=True))):
        shared_weights(searched, searched.space, rows, other, generation=generation, folder=tmp_path)
        (folder,) = tmp_path.iterdir()
        assert folder.name.startswith(f"generation_{generation}_")


def test_a_rate_that_is_too_high_is_named(tmp_path: Path) -> None:
    searched = _searched("plain")
    wild = Training(replace(CONFIG, lr=1e30, steps=40), None)
    rows = [searched.space.highest]
    with pytest.raises(DivergedError, match="learning rate"):
        shared_weights(searched, searched.space, rows, wild, generation=0, folder=tmp_path)


def test_the_model_is_left_alone_and_the_objective_goes_to_other_processes(tmp_path: Path) -> None:
    searched = _searched("plain")
    before = {n: t.clone() for n, t in searched.model.state_dict().items()}
    rows = list(searched.space.random(np.random.default_rng(0), 2))
    found = shared_weights(searched, searched.space, rows, SPARSE, generation=0, folder=tmp_path)
    assert all(torch.equal(t, before[n]) for n, t in searched.model.state_dict().items())
    assert found.key == "shared, generation 0"
    assert pickle.loads(pickle.dumps(found)).evaluate(rows[0]).loss == found.evaluate(rows[0]).loss


def test_first_channels_stay_and_genes_mean_the_same() -> None:
    space = problem("residual", pattern="4x1|dense").space
    first = first_channels(space)
    assert first.signature == space.signature
    rows = space.random(np.random.default_rng(0), 4)
    assert (first.values(rows) == space.values(rows)).all()
    assert all(k[: k.sum()].all() for row in rows for k in first.keep(row).values())


def test_statistics_are_measured_on_the_first_training_batches(tmp_path: Path) -> None:
    searched = _searched("plain")
    rows = [searched.space.highest]
    found = shared_weights(searched, searched.space, rows, SPARSE, generation=0, folder=tmp_path)
    assert len(found._settling) == 2
    for settled, (inputs, _) in zip(found._settling, searched.data, strict=False):
        assert torch.equal(settled, inputs)
