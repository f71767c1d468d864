from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import pytest

from billhook.data._splits import Sealed
from billhook.errors import VerifyError
from billhook.pipeline import Options, RunDirectory, Subject, begin, carry_out
from billhook.pipeline.order import STAGES
from billhook.pipeline.stages import prune as stage
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
    assert opened == [{s.name for s in STAGES} - {"train", "recalibrate", "score"}]
