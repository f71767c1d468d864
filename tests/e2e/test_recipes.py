"""Recipes as data: each is carried out from beginning to end, and everything a run promises is checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import billhook as bh
from billhook.measure import Artifact
from billhook.models import resolve
from billhook.run_record import Run
from tests.e2e.conftest import NETS, Billhook

QUICK = """
[measure]
rounds = 2
seconds_per_round = 0.05
"""


@dataclass(frozen=True)
class Case:
    """A recipe, and what its run must show."""

    text: str
    stages: tuple[str, ...]
    rows: tuple[str, ...] = ("latency", "size", "macs", "params")
    minimum_accuracy: float = 0.0


DATA_STAGES = ("prepare", "baseline", "decide", "prune", "export", "measure", "score")
WITHOUT_DATA = ("prepare", "decide", "prune", "export", "measure")

CASES = {
    "train, prune, fine-tune with distillation": Case(
        f"""
        [model]
        name = "{NETS}:residual"
        args = {{ width = 16 }}
        [data]
        name = "digits"
        batch = 64
        [budget]
        macs = 0.5
        [train]
        epochs = 6
        [finetune]
        epochs = 4
        lr = 0.1
        ema = 0.9
        distill = 0.7
        """,
        (*DATA_STAGES, "train", "finetune"),
        ("latency", "accuracy", "size", "macs", "params"),
        minimum_accuracy=0.8,
    ),
    "no fine-tuning: batch norm is measured anew": Case(
        f"""
        [model]
        name = "{NETS}:residual"
        [data]
        name = "digits"
        batch = 64
        [budget]
        params = 0.6
        [prune]
        method = "taylor"
        allocator = "uniform"
        exclude = ["stem*"]
        [train]
        epochs = 3
        [finetune]
        epochs = 0
        """,
        (*DATA_STAGES, "train", "recalibrate"),
        ("latency", "accuracy", "size", "macs", "params"),
    ),
    "no data, two named inputs": Case(
        f"""
        seed = 3
        [model]
        name = "{NETS}:branches"
        input = ["image=2x3x12x12", "words=2x5:int64<50"]
        [budget]
        macs = 0.7
        size = 0.9
        [prune]
        method = "fpgm"
        round_to = 4
        """,
        WITHOUT_DATA,
    ),
    "another runtime": Case(
        f"""
        [model]
        name = "{NETS}:residual"
        input = ["1x1x8x8"]
        [budget]
        macs = 0.5
        [export]
        backend = "openvino"
        """,
        WITHOUT_DATA,
    ),
}


@pytest.mark.slow
def test_what_is_compressed_may_compute_in_int8(billhook: Billhook, tmp_path: Path) -> None:
    outcome = billhook(
        *("compress", f"{NETS}:residual", "--data", "digits", "--budget", "macs=0.7", "--epochs", 0),
        *("--precision", "int8", "--calibration-images", 100, "--name", "it", "--json"),
    )
    assert outcome.code == 0, outcome.stderr
    directory = tmp_path / "runs" / "it"
    artifacts = [Artifact.load(directory / "artifacts" / name) for name in ("original", "compressed")]
    assert [a.manifest.precision for a in artifacts] == ["float32", "int8"]
    assert "the original computes in float32, what is compressed in int8" in outcome.stderr
    latency = Run.load(directory).results.row("latency")
    assert latency is not None
    assert (latency.before.conditions["precision"], latency.after.conditions["precision"]) == (
        "float32",
        "int8",
    )
    assert "float32 → int8" in (directory / "report.html").read_text()

    outcome = billhook(
        *("compress", f"{NETS}:residual", "--data", "digits", "--budget", "macs=0.7"),
        *("--precision", "int8", "--backend", "openvino"),
    )
    assert outcome.code == 1
    assert "'openvino' has no int8" in outcome.stderr


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_recipe_is_carried_out(case: Case, billhook: Billhook, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(case.text + QUICK)

    outcome = billhook("compress", recipe, "--name", "it", "--json")

    assert outcome.code == 0, outcome.stderr
    directory = tmp_path / "runs" / "it"
    assert outcome.data["run"] == "runs/it"
    run = Run.load(directory)
    assert run.results.status == "done"
    assert {p.stem for p in (directory / "stages").iterdir()} == set(case.stages)
    assert all(run.results.row(metric) for metric in case.rows)
    assert run.results.check is not None
    assert run.results.check.agrees
    assert run.results.budget_met
    assert all(b.met for b in run.results.budget_met)
    assert run.layers
    assert any(layer.after < layer.before for layer in run.layers)
    accuracy = run.results.row("accuracy")
    assert (accuracy.after.value if accuracy else 1.0) >= case.minimum_accuracy
    page = (directory / "report.html").read_text()
    assert "<html" in page
    for name in ("original", "compressed"):
        artifact = Artifact.load(directory / "artifacts" / name)
        assert artifact.manifest.parity is not None
    assert not list(directory.rglob("*.part"))


@pytest.mark.slow
@pytest.mark.serial
def test_a_bound_on_latency_holds_in_the_final_measurement(billhook: Billhook, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(
        f"""
        [model]
        name = "{NETS}:residual"
        args = {{ width = 128 }}
        input = ["1x1x16x16"]
        [budget]
        latency = 0.6
        params = 0.9
        [measure]
        rounds = 7
        seconds_per_round = 0.2
        """
    )
    outcome = billhook("compress", "r.toml", "--name", "it", "--quiet")
    assert outcome.code == 0, outcome.stderr
    results = Run.load(tmp_path / "runs" / "it").results
    assert results.latency_ratio is not None
    assert results.latency_ratio.median >= 1 / 0.6 / 1.05
    assert [(b.metric, b.met) for b in results.budget_met] == [("params", True), ("latency", True)]


FUSED = f"""
[model]
name = "{NETS}:blocks"
[data]
name = "digits"
batch = 64
[fuse]
level = "aggressive"
[prune]
method = "taylor"
allocator = "efficient"
round_to = 4
[train]
epochs = 4
[finetune]
epochs = 2
lr = 0.1
"""


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.parametrize("bound", ["macs = 0.35", "latency = 0.7"])
def test_a_fused_network_goes_all_the_way(bound: str, billhook: Billhook, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(f"{FUSED}\n[budget]\n{bound}\n{QUICK}")

    outcome = billhook("compress", "r.toml", "--name", "it", "--json")

    assert outcome.code == 0, outcome.stderr
    directory = tmp_path / "runs" / "it"
    run = Run.load(directory)
    results = run.results
    assert results.check is not None
    assert results.check.exact
    accuracy = results.row("accuracy")
    assert accuracy is not None
    if bound.startswith("macs"):  # short turns say too little about latency, and so about what it costs
        assert [entry.met for entry in results.budget_met] == [True]
        assert accuracy.after.value > 0.7
    blocks = [f"blocks.{i}" for i in range(4)]
    plan = bh.Plan.load(directory / "plan.json")
    assert sorted(fusion["at"] for fusion in plan.fusions) == blocks
    fused = "fused: add_identity at blocks.0, blocks.1, blocks.3"
    for place in (results.notes, (directory / "report.html").read_text()):
        assert any(fused in text for text in (place if isinstance(place, tuple) else (place,)))
    assert {f"{b}.copies" for b in blocks} <= {layer.layer for layer in run.layers}
    small = bh.load(directory, lambda: resolve(f"{NETS}:blocks")).eval()
    assert small(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    artifact = Artifact.load(directory / "artifacts" / "compressed")
    assert artifact.manifest.parity is not None
    macs = results.row("macs")
    assert macs is not None
    assert artifact.manifest.cost is not None
    assert artifact.manifest.cost["macs"] == macs.after.value
    assert macs.after.value < macs.before.value


def test_what_a_run_leaves_is_loaded_by_another_program(billhook: Billhook, tmp_path: Path) -> None:
    outcome = billhook(
        "compress",
        f"{NETS}:residual",
        "--input",
        "2x1x8x8",
        "--budget",
        "macs=0.5",
        "--name",
        "it",
        "--quiet",
    )
    assert outcome.code == 0, outcome.stderr
    small = bh.load(tmp_path / "runs" / "it", lambda: resolve(f"{NETS}:residual"))
    kept = Run.load(tmp_path / "runs" / "it").results.row("params")
    assert kept is not None
    assert sum(p.numel() for p in small.parameters()) == kept.after.value
    assert small.eval()(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
