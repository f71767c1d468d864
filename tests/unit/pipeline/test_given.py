"""A run that carries a plan file out: channels, then training, then zeros as many as the plan has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import billhook as bh
from billhook.errors import InputError, PlanError
from billhook.graph import Plan, make_plan
from billhook.graph.storage import read_tensors
from billhook.pipeline import Options, Subject, begin, carry_out, preview
from billhook.pipeline import compress as whole_run
from billhook.pipeline.order import STAGES
from billhook.pipeline.runner import Stage
from billhook.recipe import Recipe, read
from billhook.run_record import Run
from billhook.sparse.holding import holds

QUICK = {"rounds": 1, "seconds_per_round": 0.02}
DIGITS = {"name": "digits", "batch": 128, "limit": 60}
SMALL = {"name": "resnet-8", "args": {"width": 8}}


def recipe(file: Path, **tables: Any) -> Recipe:
    given = {"method": "given", "options": {"plan": str(file), **tables.pop("options", {})}}
    base = {"name": "it", "model": SMALL, "data": DIGITS, "measure": QUICK, "finetune": {"steps": 3}}
    return Recipe.model_validate({**base, "prune": given, **tables})


@pytest.fixture
def channels(tmp_path: Path) -> Path:
    """A plan that takes every other unit of each group of a ResNet-8."""
    subject = Subject(Recipe.model_validate({"model": SMALL, "data": DIGITS}))
    graph = subject.graph
    plan = make_plan(graph, {g.id: torch.arange(g.size) % 2 == 0 for g in graph.groups.prunable})
    plan.save(tmp_path / "plan.json")
    return tmp_path / "plan.json"


@pytest.fixture
def joint(channels: Path, tmp_path: Path) -> Path:
    """The same plan with zeros in two weights."""
    subject = Subject(Recipe.model_validate({"model": SMALL, "data": DIGITS}))
    wanted = ("stages.1.0.conv1.weight", "stages.2.0.conv2.weight")
    made = bh.sparsify(
        *(subject.model, subject.example_inputs),
        plan=Plan.load(channels),
        pattern=dict.fromkeys(wanted, "4x1"),
        sparsities={wanted[0]: 0.5, wanted[1]: 0.75},
    )
    made.plan.save(tmp_path / "joint.json")
    return tmp_path / "joint.json"


@pytest.mark.slow
def test_a_run_needs_no_budget_and_keeps_its_own_copy_of_the_plan(channels: Path, tmp_path: Path) -> None:
    subject = Subject(recipe(channels))
    directory = begin(subject, tmp_path / "runs")
    channels.unlink()
    results = carry_out(directory, Options(), subject)
    assert results.method == "given"
    assert results.budget_met == ()
    assert [p.label for p in results.trajectory][:2] == ["original", "pruned"]
    kept = read(directory.file("recipe.toml"))
    assert kept.prune.options["plan"] == str(directory.file("given.json").resolve())
    assert Plan.load(directory.file("plan.json")).removed


@pytest.mark.slow
def test_zeros_of_the_plan_are_made_anew_after_the_channels_have_settled(joint: Path, tmp_path: Path) -> None:
    wanted = recipe(joint, settle={"steps": 4}, sparse={"method": "admm", "training": {"steps": 4}})
    subject = Subject(wanted)
    assert subject.recipe.sparse.sparsities == {
        "stages.1.0.conv1.weight": 0.5,
        "stages.2.0.conv2.weight": 0.75,
    }
    directory = begin(subject, tmp_path / "runs")
    results = carry_out(directory, Options(), subject)
    plan = Plan.load(directory.file("plan.json"))
    sparsities = {n: s.sparsity for n, s in plan.patterns.items()}
    assert sparsities == pytest.approx({"stages.1.0.conv1.weight": 0.5, "stages.2.0.conv2.weight": 0.75})
    settled = directory.outcome("settle")
    assert settled is not None
    assert settled["steps"] == 4
    labels = [p.label for p in results.trajectory]
    assert labels == ["original", "pruned", "settled, epoch 1", "sparse", "fine-tuned, epoch 1"]
    assert results.status == "done"
    assert results.check is not None
    assert results.check.agrees
    network = bh.load(directory.path, lambda: Subject(wanted).model)
    assert holds(network, plan.patterns) is None


def test_the_sparse_stage_begins_with_the_settled_weights(joint: Path, tmp_path: Path) -> None:
    subject = Subject(recipe(joint, settle={"steps": 4}, finetune={"epochs": 0}))
    directory = begin(subject, tmp_path / "runs")
    carry_out(directory, Options(), subject)
    plan = Plan.load(directory.file("plan.json"))
    full = read_tensors(directory.file("settled.safetensors"))
    small = read_tensors(directory.file("sparse.safetensors"), plan.patterns)
    stays = plan.keep["stages.0"] if "stages.0" in plan.keep else next(iter(plan.keep.values()))
    original = subject.model.state_dict()
    name = "stem.0.weight" if "stem.0.weight" in small else next(n for n in small if small[n].dim() == 4)
    assert torch.equal(small[name], full[name][torch.from_numpy(stays)])
    assert not torch.equal(full[name], original[name])


@pytest.mark.slow
def test_a_run_that_is_stopped_after_each_stage_ends_as_one_that_is_not(
    joint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(joint, settle={"steps": 3}, sparse={"method": "admm", "training": {"steps": 3}})
    subject = Subject(wanted)
    whole = begin(subject, tmp_path / "runs")
    carry_out(whole, Options(), subject)
    tried: list[str] = []

    def stopping(stage: Stage[Any]) -> Stage[Any]:
        def run(work: Any) -> Any:
            outcome = stage.run(work)  # its files are written, but it does not count as finished
            if stage.name not in tried:
                tried.append(stage.name)
                raise KeyboardInterrupt
            return outcome

        return replace(stage, run=run)

    monkeypatch.setattr(whole_run, "STAGES", tuple(map(stopping, STAGES)))
    subject = Subject(wanted.model_copy(update={"name": "again"}))
    directory = begin(subject, tmp_path / "runs")
    while True:
        try:
            carry_out(directory)
            break
        except KeyboardInterrupt:
            assert len(tried) <= len(STAGES)
    assert {"settle", "sparsify", "finetune"} <= set(tried)
    weights = [read_tensors(d.file("weights.safetensors")) for d in (whole, directory)]
    assert all(torch.equal(weights[0][n], weights[1][n]) for n in weights[0])
    assert Run.load(directory.path).results.status == "done"


def test_a_dry_run_shows_the_plan_with_its_zeros(joint: Path) -> None:
    decision = preview(recipe(joint))
    assert decision.plan.removed == Plan.load(joint).removed
    assert [row["tensor"] for row in decision.weights] == list(Plan.load(joint).patterns)


def test_what_the_recipe_says_about_weights_goes_before_the_plan(joint: Path) -> None:
    subject = Subject(recipe(joint, sparse={"sparsity": 0.3}))
    assert subject.recipe.sparse.sparsities is None


def test_mistakes_are_found_before_there_is_a_run(joint: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(InputError, match="option plan=FILE"):
        begin(
            Subject(Recipe.model_validate({"model": SMALL, "data": DIGITS, "prune": {"method": "given"}})),
            runs,
        )
    with pytest.raises(PlanError, match=r"none\.json"):
        begin(Subject(recipe(tmp_path / "none.json")), runs)
    sparse = {"sparsities": {"stages.1.0.conv9.weight": 0.5}, "pattern": "4x1"}
    with pytest.raises(InputError, match=r"unknown weight with a pattern 'stages\.1\.0\.conv9\.weight'"):
        begin(Subject(recipe(joint, sparse=sparse)), runs)
    without = recipe(joint, settle={"epochs": 1}).model_copy(update={"data": None})
    with pytest.raises(InputError, match=r"\[settle\] needs data"):
        begin(Subject(without), runs)
    assert not runs.exists()


def test_sparsities_say_it_all() -> None:
    with pytest.raises(ValueError, match="sparsities say it all"):
        Recipe.model_validate({"model": SMALL, "sparse": {"sparsity": 0.5, "sparsities": {"a": 0.5}}})
