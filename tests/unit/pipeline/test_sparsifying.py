"""Zeros in weights as a stage of a run: decided, proved, held through fine-tuning, stored and resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import billhook as bh
from billhook.errors import InputError, ScopeError, VerifyError
from billhook.graph import Plan
from billhook.graph.storage import read_tensors
from billhook.models import build
from billhook.pipeline import Options, RunDirectory, Subject, begin, carry_out, preview
from billhook.pipeline import training as training_of_runs
from billhook.pipeline.event import silent
from billhook.pipeline.order import STAGES
from billhook.pipeline.sparsifying import check_sparse, decides_by
from billhook.pipeline.stages import sparsify as stage
from billhook.pipeline.work import Work
from billhook.recipe import Recipe
from billhook.results import Check
from billhook.run_record import Results, Run
from billhook.sparse.holding import holds

QUICK = {"rounds": 1, "seconds_per_round": 0.02}
DIGITS = {"name": "digits", "batch": 128, "limit": 60}
SMALL = {"name": "resnet-8", "args": {"width": 8}}


def recipe(sparse: dict[str, Any], **tables: Any) -> Recipe:
    base = {"model": {**SMALL, "input": ["1x3x8x8"]}, "measure": QUICK, "sparse": sparse}
    return Recipe.model_validate({"name": "it", **base, **tables})


def on_digits(sparse: dict[str, Any], **tables: Any) -> Recipe:
    given = {"model": SMALL, "data": DIGITS, "finetune": {"steps": 3, "checkpoint_steps": 1}, **tables}
    return recipe(sparse, **given)


def carried_out(wanted: Recipe, parent: Path) -> Done:
    subject = Subject(wanted)
    directory = begin(subject, parent)
    return directory, carry_out(directory, Options(), subject)


ALONE = {"sparsity": 0.9, "pattern": "4x1"}
Done = tuple[RunDirectory, Results]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A run in which weights leave, and no channels."""
    return carried_out(recipe(ALONE), tmp_path_factory.mktemp("alone"))


def test_weights_alone_may_leave(alone: Done) -> None:
    directory, results = alone
    wanted = recipe(ALONE)
    plan = Plan.load(directory.file("plan.json"))
    assert not plan.removed
    assert set(plan.patterns) == {layer.tensor for layer in Subject(wanted).graph.weights}
    assert results.method == "magnitude"
    assert results.check is not None
    assert results.check.exact
    sparsity = results.sparsity
    assert sparsity is not None
    assert 1 - sparsity.kept / sparsity.weights == pytest.approx(0.9, abs=0.01)
    assert sparsity.held is None  # there are no data to fine-tune with
    costs = Subject(wanted).graph.costs
    macs, params = results.row("macs"), results.row("params")
    assert macs is not None
    assert params is not None
    assert macs.after.value == costs.cost(plan).macs < 0.35 * macs.before.value
    assert params.after.value == costs.cost(plan).params < 0.35 * params.before.value
    assert any("onnxruntime multiplies with them" in note for note in results.notes)


def test_the_engine_turns_zeros_into_time_and_bytes(engine: None, tmp_path: Path) -> None:
    _, results = carried_out(recipe(ALONE, export={"backend": "billhook"}), tmp_path)
    size, latency = results.row("size"), results.row("latency")
    assert size is not None
    assert latency is not None
    assert size.after.value < 0.5 * size.before.value
    assert latency.after.conditions["runtime"].startswith("billhook ")
    assert not any("multiplies with them" in note for note in results.notes)


def test_zeros_are_bytes_in_memory_and_not_in_the_encoded_weights(alone: Done) -> None:
    _, results = alone
    memory, encoded = results.row("bytes"), results.row("encoded")
    assert memory is not None
    assert encoded is not None
    assert memory.after.value == memory.before.value == encoded.before.value
    cost = Subject(recipe(ALONE)).graph.costs.cost(Plan.load(alone[0].file("plan.json")))
    assert encoded.after.value == cost.bytes < 0.5 * memory.after.value


def test_the_stored_network_is_small_and_the_exported_one_after_gzip(alone: Done) -> None:
    directory, results = alone
    stored, exported, packed = (results.row(metric) for metric in ("stored", "size", "size_gzip"))
    assert stored is not None
    assert exported is not None
    assert packed is not None
    assert stored.after.value == directory.file("weights.safetensors").stat().st_size
    assert (
        stored.after.value < 0.5 * stored.before.value
    )  # names and shapes take a part of so small a network
    assert exported.after.value > 0.95 * exported.before.value
    assert packed.after.value < 0.5 * packed.before.value
    metrics = [row.metric for row in results.rows]
    first = metrics.index("size")
    assert metrics[first : first + 4] == ["size", "size_gzip", "stored", "stored_gzip"]


@pytest.mark.slow
def test_layers_say_what_is_left_of_them(tmp_path: Path) -> None:
    directory, _ = carried_out(
        recipe({"sparsity": 0.5, "pattern": "4x1"}, budget={"macs": 0.5}, model=_of_width(32)), tmp_path
    )
    plan = Plan.load(directory.file("plan.json"))
    assert plan.removed
    layers = {f"{x.layer}.weight": x for x in Run.load(directory.path).layers}
    original = dict(build("resnet-8", width=32).named_parameters())
    for name, structure in plan.patterns.items():
        assert layers[name].kept == structure.nonzeros
        assert layers[name].weights == original[name].numel()
        assert layers[name].pattern == "4x1"
        assert layers[name].after == structure.shape[0]


def _of_width(width: int) -> dict[str, Any]:
    return {"name": "resnet-8", "args": {"width": width}, "input": ["1x3x8x8"]}


def test_fine_tuning_keeps_every_pattern_and_the_results_say_so(tmp_path: Path) -> None:
    directory, results = carried_out(
        on_digits({"sparsity": 0.7}, finetune={"steps": 5, "weight_decay": 0.01}), tmp_path
    )
    work = Work(Subject(on_digits({"sparsity": 0.7})), directory, silent)
    assert results.sparsity is not None
    assert results.sparsity.held is True
    network, before = work.compressed, work.pruned()
    assert holds(network, work.plan.patterns) is None
    assert any(not torch.equal(a, b) for a, b in zip(network.parameters(), before.parameters(), strict=True))
    loaded = bh.load(directory.path, lambda: build("resnet-8", width=8, in_channels=1))
    state = network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    assert [p.label for p in results.trajectory][:2] == ["original", "sparse"]  # no channels were pruned


def test_a_pattern_that_leaks_in_training_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from billhook.train.callbacks import Callback

    monkeypatch.setattr(training_of_runs, "HoldPatterns", lambda structures: Callback())
    subject = Subject(on_digits({"sparsity": 0.7}))
    directory = begin(subject, tmp_path)
    with pytest.raises(VerifyError, match=r"has lost its pattern in training"):
        carry_out(directory, Options(), subject)
    assert Run.load(directory.path).results.status == "failed"


def test_a_sparse_network_that_fails_verification_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Check(False, False, 1.0, 0.5, 1e-4, "stages.1.0.conv1")
    monkeypatch.setattr(stage, "verify", lambda *_: wrong)
    subject = Subject(recipe({"sparsity": 0.5}))
    directory = begin(subject, tmp_path)
    with pytest.raises(VerifyError, match=r"first at layer 'stages\.1\.0\.conv1'"):
        carry_out(directory, Options(), subject)
    assert not Plan.load(directory.file("plan.json")).patterns


@pytest.mark.slow
@pytest.mark.parametrize("method", ["magnitude", "admm"])
def test_a_run_that_is_interrupted_at_zeros_ends_like_one_that_was_not(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse = {"sparsity": 0.7, "method": method, "training": {"steps": 6, "checkpoint_steps": 1}}
    wanted = on_digits(sparse, budget={"macs": 0.6}, model={"name": "resnet-8"})
    whole, _ = carried_out(wanted, tmp_path / "whole")

    from billhook.pipeline import compress as whole_run

    failed: list[str] = []

    def once(work: Work) -> Any:
        outcome = stage.run(work)  # everything is written, but the stage does not count as finished
        if not failed:
            failed.append("now")
            raise KeyboardInterrupt
        return outcome

    stages = tuple(replace(s, run=once) if s.name == "sparsify" else s for s in STAGES)
    monkeypatch.setattr(whole_run, "STAGES", stages)
    subject = Subject(wanted)
    directory = begin(subject, tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        carry_out(directory, Options(), subject)
    assert Plan.load(directory.file("plan.json")).patterns
    carry_out(RunDirectory.open(directory.path), Options())  # by another process

    same(directory, whole)


@pytest.mark.slow
def test_a_sparse_method_goes_on_at_the_step_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from billhook.data._batches import Batches

    sparse = {"sparsity": 0.7, "method": "admm", "training": {"steps": 8, "checkpoint_steps": 1}}
    wanted = on_digits(sparse)
    whole, _ = carried_out(wanted, tmp_path / "whole")
    real, seen = Batches.epoch, list[int]()

    def stopping(self: Any, number: int, start: int = 0) -> Any:
        for i, batch in enumerate(real(self, number, start)):
            seen.append(start + i)
            if len(seen) == 6:
                raise KeyboardInterrupt
            yield batch

    subject = Subject(wanted)
    directory = begin(subject, tmp_path / "cut")
    with monkeypatch.context() as patch:
        patch.setattr(Batches, "epoch", stopping)
        with pytest.raises(KeyboardInterrupt):
            carry_out(directory, Options(), subject)
    assert (directory.path / "checkpoints/sparsify").is_dir()
    assert directory.outcome("sparsify") is None
    carry_out(RunDirectory.open(directory.path), Options())
    same(directory, whole)


def same(directory: RunDirectory, other: RunDirectory) -> None:
    assert directory.file("plan.json").read_text() == other.file("plan.json").read_text()
    mine, theirs = (read_tensors(d.file("weights.safetensors")) for d in (directory, other))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    for name in ("accuracy", "params", "stored"):
        rows = [Run.load(d.path).results.row(name) for d in (directory, other)]
        assert rows[0] == rows[1]


@pytest.mark.slow
def test_the_weights_of_a_method_that_trains_are_where_fine_tuning_begins(tmp_path: Path) -> None:
    sparse = {"sparsity": 0.6, "method": "admm", "training": {"steps": 6}}
    wanted = on_digits(sparse, finetune={"epochs": 0})
    directory, results = carried_out(wanted, tmp_path)
    work = Work(Subject(wanted), directory, silent)
    network = work.pruned()
    assert any(
        not torch.equal(a, b) for a, b in zip(network.parameters(), work.original.parameters(), strict=True)
    )
    assert holds(network, work.plan.patterns) is None
    outcome = work.outcome("sparsify")
    assert outcome["history"]
    assert outcome["made_by"]["sparse_method"] == "admm"
    assert any(note.startswith("admm: the largest relative distance") for note in results.notes)
    assert [d.step for d in results.distances] == [entry["step"] for entry in outcome["log"]]
    assert results.distances
    assert all(d.primal is not None for d in results.distances)


@pytest.mark.slow
def test_a_fused_network_gets_zeros_too(tmp_path: Path) -> None:
    fuse = {"level": "aggressive", "operators": ["add_identity", "batch_norm"], "keep_if": "always"}
    directory, results = carried_out(
        recipe(
            {"sparsity": 0.5, "pattern": "4x1|dense"}, fuse=fuse, budget={"macs": 0.7}, model=_of_width(16)
        ),
        tmp_path,
    )
    plan = Plan.load(directory.file("plan.json"))
    assert plan.fusions
    assert plan.patterns
    assert results.sparsity is not None
    small = bh.load(directory.path, lambda: build("resnet-8", width=16))
    assert holds(small, plan.patterns) is None
    params = results.row("params")
    assert params is not None
    assert params.after.value < 0.4 * params.before.value  # channels alone leave two thirds


def test_a_preview_shows_the_zeros_of_every_layer_and_changes_nothing() -> None:
    wanted = recipe({"sparsity": 0.5, "pattern": "1x1"})
    decision = preview(wanted)
    rows = decision.to_dict()["weights"]
    assert sum(row["kept"] for row in rows) / sum(row["weights"] for row in rows) == pytest.approx(
        0.5, abs=0.01
    )
    assert {row["pattern"] for row in rows} == {"1x1"}
    assert decision.after.params < decision.before.params
    assert "weights" not in preview(recipe({}, budget={"macs": 0.5})).to_dict()


def test_a_pattern_that_leaves_no_choice_needs_no_sparsity() -> None:
    rows = preview(recipe({"pattern": "2:4|dense"})).to_dict()["weights"]
    assert {row["pattern"] for row in rows} == {"2:4"}
    assert sum(row["kept"] for row in rows) == pytest.approx(sum(row["weights"] for row in rows) / 2, rel=0.1)


def test_patterns_can_be_mapped_to_layers_by_rules() -> None:
    decision = preview(recipe({"pattern": "rules", "sparsity": 0.5}))
    assert decision.weights
    assert decision.plan.made_by["mapping"]


@pytest.mark.usefixtures("engine")
def test_rules_take_the_times_of_the_runtime_that_is_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    from billhook.deploy.backends.billhook_ import BillhookEngine

    asked = []
    real = BillhookEngine.layer_times

    def layer_times(self: BillhookEngine, model: nn.Module, example_inputs: Any, threads: int = 1) -> Any:
        asked.append(threads)
        return real(self, model, example_inputs, threads)

    monkeypatch.setattr(BillhookEngine, "layer_times", layer_times)
    wanted = {"pattern": "rules:latency=0.8"}
    wide = {"name": "resnet-8", "args": {"width": 32}, "input": ["1x3x32x32"]}
    preview(recipe(wanted, model=wide))
    assert asked == []
    tables = {"model": wide, "export": {"backend": "billhook"}, "measure": {**QUICK, "threads": 2}}
    assert preview(recipe(wanted, **tables)).weights
    assert asked
    assert set(asked) == {2}


def test_a_preview_of_what_is_decided_in_training_is_refused() -> None:
    with pytest.raises(InputError, match="sparse method 'admm' decides while it trains"):
        preview(on_digits({"sparsity": 0.5, "method": "admm"}))


@pytest.mark.parametrize(
    ("sparse", "error", "message"),
    [
        ({}, InputError, "there is no budget and no sparsity: give --budget .* or --sparsity"),
        ({"pattern": "4x1"}, InputError, "how many weights shall be zero"),
        ({"method": "admm"}, InputError, r"\[sparse\] says 'method', but not how many weights"),
        ({"pattern": "rules"}, InputError, "pattern 'rules' needs a sparsity, or a latency"),
        ({"pattern": "search"}, InputError, "pattern 'search' looks for .*: give --sparsity"),
        ({"pattern": "search", "sparsity": 0.5}, InputError, "pattern 'search' looks for .*: give --data"),
        ({"sparsity": 0.5, "method": "admm"}, InputError, "learns from data: give --data"),
        ({"sparsity": 0.5, "options": {"a": 1}}, InputError, "has no option 'a'"),
        ({"sparsity": 0.5, "exclude": ["nothing"]}, ScopeError, "'nothing' matches no layer or weight"),
        ({"sparsity": 0.9999}, InputError, "sparsity=0.9999 cannot be had with these patterns"),
        ({"sparsity": 0.05, "pattern": "rules"}, InputError, "mapping 'rules' leaves every layer dense"),
        ({"pattern": "rules:latency=1.0"}, InputError, "'rules:latency=1.0' leaves every layer dense"),
        ({"sparsity": 0.5, "pattern": {"conv": "4x1", "cnv": "4x1"}}, InputError, "unknown weight 'cnv'"),
        (
            {"sparsity": 0.5, "pattern": "block_punched:rows=3,remainder=refuse"},
            InputError,
            r"not fit every layer in scope: .*weight \[.*do not divide",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(
    sparse: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        begin(Subject(recipe(sparse)), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_scope_of_zeros_beside_a_budget_and_without_zeros_is_a_mistake(tmp_path: Path) -> None:
    wanted = recipe({"exclude": ["conv"]}, budget={"macs": 0.5})
    with pytest.raises(InputError, match=r"\[sparse\] says 'exclude', but not how many weights"):
        begin(Subject(wanted), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_names_of_methods_are_those_that_do_something() -> None:
    assert decides_by(recipe({}, budget={"macs": 0.5})) == "l2"
    assert decides_by(recipe({"sparsity": 0.5})) == "magnitude"
    assert decides_by(recipe({"sparsity": 0.5, "method": "admm"}, budget={"macs": 0.5})) == "l2 + admm"


def test_a_recipe_without_zeros_needs_no_check() -> None:
    check_sparse(Subject(recipe({}, budget={"macs": 0.5})))


def test_the_plan_of_another_network_is_refused(alone: Done) -> None:
    directory, _ = alone
    with pytest.raises(bh.BillhookError, match="made for another network"):
        bh.load(directory.path, lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))
