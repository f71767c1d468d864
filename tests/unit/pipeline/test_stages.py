from __future__ import annotations

import inspect
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pytest
import torch
from torch import fx, nn

import billhook as bh
from billhook import deploy
from billhook.data._splits import Sealed
from billhook.errors import VerifyError
from billhook.fuse import Fused, fuse
from billhook.graph.fusions import Refusal
from billhook.graph.layers import LayeredNetwork
from billhook.models import build
from billhook.pipeline import Options, RunDirectory, Subject, begin, carry_out
from billhook.pipeline.event import silent
from billhook.pipeline.order import STAGES
from billhook.pipeline.stages import export, finetune
from billhook.pipeline.stages import prune as stage
from billhook.pipeline.work import Work
from billhook.recipe import Finetune, Recipe, Training
from billhook.results import Check
from billhook.run_record import Run
from billhook.train import FitConfig

QUICK = {"rounds": 1, "seconds_per_round": 0.02}


def recipe(**tables: object) -> Recipe:
    return Recipe.model_validate(
        {"model": {"name": "resnet-8"}, "budget": {"macs": 0.5}, "measure": QUICK, **tables}
    )


def test_a_recipe_can_say_everything_that_training_takes() -> None:
    in_config = set(inspect.signature(FitConfig).parameters)
    assert set(Finetune.model_fields) == in_config - {"seed"}
    assert set(Training.model_fields) == in_config - {"seed", "distill", "temperature"}


def test_defaults_of_training_are_those_of_fit() -> None:
    assert Training().to_config(seed=0) == FitConfig()
    assert replace(Finetune().to_config(seed=0), lr=FitConfig().lr) == FitConfig()


def test_a_network_that_fails_verification_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Check(False, False, 1.0, 0.5, 1e-4, "stages.1.0.conv1")
    monkeypatch.setattr(stage, "verify", lambda *_: wrong)
    subject = Subject(recipe(model={"name": "resnet-8", "input": ["1x3x8x8"]}))
    directory = begin(subject, tmp_path)
    with pytest.raises(VerifyError, match=r"first at layer 'stages\.1\.0\.conv1'; exclude it with --exclude"):
        carry_out(directory, Options(), subject)
    assert Run.load(directory.path).results.status == "failed"
    assert not directory.file("weights.safetensors").exists()


@pytest.mark.slow
def test_the_test_split_is_opened_once_and_after_everything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[set[str]] = []
    real = Sealed.open
    directory = RunDirectory(tmp_path / "it")

    def noted(self: Sealed) -> object:
        opened.append({p.stem for p in (directory.path / "stages").iterdir()})
        return real(self)

    monkeypatch.setattr(Sealed, "open", noted)
    subject = Subject(recipe(name="it", data={"name": "digits", "batch": 64}, finetune={"steps": 2}))
    carry_out(begin(subject, tmp_path), Options(), subject)
    assert opened == [{s.name for s in STAGES} - {"train", "settle", "sparsify", "recalibrate", "score"}]


@pytest.mark.slow
def test_the_rate_of_fine_tuning_can_follow_the_damage(tmp_path: Path) -> None:
    subject = Subject(
        recipe(name="it", data={"name": "digits", "batch": 64}, finetune={"steps": 2, "lr": "auto"})
    )
    directory = begin(subject, tmp_path)
    results = carry_out(directory, Options(), subject)
    outcome = directory.outcome("finetune")
    assert outcome is not None
    chosen = outcome["lr"]
    assert 0.02 <= chosen["chosen"] <= 0.2
    damage = 1 - min(1, chosen["after"]["mean"] / chosen["before"]["mean"])
    assert chosen["chosen"] == pytest.approx(0.02 * 10**damage, rel=0.05)
    assert any(f"learning rate of fine-tuning is {chosen['chosen']:g}" in note for note in results.notes)


def test_an_interrupted_run_keeps_the_rate_it_began_with(tmp_path: Path) -> None:
    subject = Subject(recipe(name="it", data={"name": "digits", "batch": 64}, finetune={"lr": "auto"}))
    work = Work(subject, begin(subject, tmp_path), silent)
    small = work.original  # nothing has left it
    assert finetune._learning_rate(work, small, "finetune")["chosen"] == 0.02
    with torch.no_grad():
        next(small.parameters()).mul_(0.1)  # as if measured with other arithmetic
    assert finetune._learning_rate(work, small, "finetune")["chosen"] == 0.02


def _fused(**tables: object) -> Recipe:
    return recipe(
        name="it",
        model={"name": "resnet-8", "input": ["1x3x8x8"]},
        fuse={
            "level": "aggressive",
            "operators": ["add_identity", "batch_norm"],
            "exclude": ["stages.1*"],
            "keep_if": "always",
        },
        **tables,
    )


def test_notes_say_what_was_fused_and_what_became_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = ("shortcut", Refusal("stages.1.0", "add_identity", "there is no reason"))

    def refusing(subject: Subject) -> Fused:
        made = fuse(subject.model, subject.example_inputs, subject.recipe.fuse.to_fusion())
        return Fused(made.network, made.held, (refused,))

    monkeypatch.setattr(Subject, "fused", cached_property(refusing))
    Subject.fused.__set_name__(Subject, "fused")
    subject = Subject(_fused())
    notes = carry_out(begin(subject, tmp_path), Options(), subject).notes
    assert "fused: add_identity at stages.0.0, stages.2.0" in notes
    assert "not fused: add_identity at stages.1.0: there is no reason" in notes
    # Everything else has multiplications of its own, for which the budget has no room left.
    assert "lowered: the shortcuts of stages.0.0, stages.2.0 run as look-ups of channels" in notes


def test_an_export_says_what_was_measured_for_it() -> None:
    lowered = deploy.Lowered(
        LayeredNetwork(nn.Module(), fx.Graph()),
        {"a": "pointwise", "b": "gather", "c": "pointwise"},
        {"pointwise": 1.0, "gather": 1.2, "gather at 8×8": 0.9},
    )
    assert export._notes(lowered) == [
        "lowered: the shortcuts of a, c run as 1×1 convolutions that copy channels",
        "lowered: the shortcuts of b run as look-ups of channels",
        "lowered: measured for shortcuts, as multiples of the time of pointwise: "
        "pointwise 1.00, gather 1.20, gather at 8×8 0.90",
    ]
    assert export._notes(replace(lowered, forms={}, ratios={})) == []


def test_the_plan_of_a_fused_run_is_for_the_users_own_network(tmp_path: Path) -> None:
    subject = Subject(_fused(budget={"macs": 0.6, "size": 0.7}))
    directory = begin(subject, tmp_path)
    results = carry_out(directory, Options(), subject)
    assert all(entry.met for entry in results.budget_met)
    small = bh.load(directory.path, lambda: build("resnet-8"))
    work = Work(Subject(_fused()), directory, silent)
    assert [f["at"] for f in work.plan.fusions] == ["stages.0.0", "stages.2.0"]
    kept = work.compressed.state_dict()
    assert all(torch.equal(t, kept[name]) for name, t in small.state_dict().items())
    assert small.eval()(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
