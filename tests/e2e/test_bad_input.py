"""Every mistake gets one clear message and the right exit code, and no traceback."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.e2e.conftest import NETS, Billhook, Outcome, billhook_command
from tests.e2e.nets import residual

NET = f"{NETS}:residual"
SHAPE = ("--input", "1x1x8x8")
HALF = ("--budget", "macs=0.5")


def check(outcome: Outcome, code: int, *parts: str) -> None:
    """One message which holds `parts`; on stderr; no traceback; and stdout stays clean."""
    assert outcome.code == code, outcome.stderr
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.stderr
    messages = [line for line in outcome.stderr.splitlines() if line.lower().startswith("error: ")]
    assert len(messages) == 1
    for part in parts:
        assert part in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("inspct", NET), ("No such command 'inspct'", "inspect")),
        (("inspect", NET, "--inptu", "1x1x8x8"), ("--inptu", "--input")),
        (("inspect", "resnet-9", *SHAPE), ("unknown model 'resnet-9'; did you mean 'resnet-8'",)),
        (("inspect", f"{NETS}:residul", *SHAPE), ("has no 'residul'; did you mean 'residual'",)),
        (("inspect", "none.py:net", *SHAPE), ("there is no file", "none.py")),
        (("inspect", "no.module:net", *SHAPE), ("there is no module 'no'",)),
        (("inspect", f"{NETS}:no_network", *SHAPE), ("returned a int instead of a torch.nn.Module",)),
        (("inspect", f"{NETS}:broken", *SHAPE), ("RuntimeError: no licence for this network", "nets.py:")),
        (("inspect", NET, "--model-arg", "16", *SHAPE), ("--model-arg '16': write KEY=VALUE",)),
        (("inspect", NET, "--model-arg", "widht=8", *SHAPE), ("unexpected keyword argument 'widht'",)),
        (("inspect", NET), ("give --input 1x3x224x224, or --data",)),
        (("inspect", NET, "--input", "1,1,8,8"), ("--input: cannot read input '1,1,8,8'",)),
        (("inspect", NET, "--data", "digit"), ("--data: unknown data set 'digit'; did you mean 'digits'",)),
        (("compress", NET, *SHAPE, "--budget", "mac=0.5"), ("'mac'", "did you mean 'macs'")),
        (("compress", NET, *SHAPE, "--budget", "macs"), ("--budget 'macs': write METRIC=BOUND",)),
        (("compress", NET, *SHAPE, "--budget", "macs=lots"), ("--budget: cannot read 'lots' as count",)),
        (("compress", NET, *SHAPE), ("there is no budget and no sparsity: give --budget",)),
        (
            ("compress", NET, *SHAPE, *HALF, "--fuse", "agressive"),
            ("--fuse: must be one of 'none', 'conservative', 'aggressive', found 'agressive'",),
        ),
        (("inspect", NET, *SHAPE, "--fuse-option", "form=chain"), ("unknown key 'form'", "add_form")),
        (
            ("compress", NET, *SHAPE, *HALF, "--fuse", "aggressive", "--fuse-option", "exclude=['projct']"),
            ("fusion pattern 'projct' matches no place that could be fused; did you mean 'project'?",),
        ),
        (
            ("inspect", NET, *SHAPE, "--fuse", "aggressive", "--fuse-option", "include=['stem*', 'project']"),
            ("fusion pattern 'stem*' matches no place that could be fused; known: project",),
        ),
        (("compress", NET, *SHAPE, *HALF, "--method", "l3"), ("unknown method 'l3'; did you mean 'l2'",)),
        (("compress", NET, *SHAPE, *HALF, "--option", "power=3"), ("'power'",)),
        (("compress", NET, *SHAPE, *HALF, "--allocator", "globl"), ("did you mean 'global'",)),
        (("compress", NET, *SHAPE, *HALF, "--backend", "onnxruntim"), ("did you mean 'onnxruntime'",)),
        (
            ("compress", NET, *SHAPE, *HALF, "--method", "taylor"),
            ("method 'taylor' learns from data: give --data",),
        ),
        (
            ("compress", NET, *SHAPE, *HALF, "--include", "projct", "--exclude", "stm"),
            ("'projct' matches no group", "did you mean 'project'", "'stm' matches no group"),
        ),
        (
            ("compress", NET, "--data", "digits", "--input", "1x3x8x8", *HALF),
            ("does not fit the images of digits",),
        ),
        (("compress", NET, *SHAPE, *HALF, "--weights", "none.pth"), ("there is no file", "none.pth")),
        (("compress", "none.toml"), ("none.toml: cannot read this recipe",)),
        (("compress",), ("what shall be compressed?",)),
        (("compress", NET, "--resume", "runs/it"), ("--resume continues the run as it was begun",)),
        (("compress", "--resume", "runs/it"), ("run directory runs/it does not exist",)),
        (("measure", ".", "."), ("an artifact is given twice",)),
    ],
    ids=lambda value: " ".join(map(str, value)).replace(str(NETS), "nets.py")[:60],
)
def test_wrong_usage(arguments: tuple[str, ...], parts: tuple[str, ...], billhook: Billhook) -> None:
    check(billhook(*arguments), 2, *parts)
    assert not Path("runs").exists()


def test_a_wrong_recipe_shows_all_its_problems_with_their_lines(billhook: Billhook, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('[model]\nname = "m"\nwieghts = "w"\n[prune]\nmethod = "l3"\n[bugdet]\n')
    outcome = billhook("compress", "r.toml")
    check(
        outcome,
        2,
        "r.toml:3: unknown key 'wieghts'",
        "r.toml:5: prune.method",
        "r.toml:6: unknown table 'bugdet'",
    )


@pytest.mark.parametrize("shape", ["1x3x8x8", "1x8"])
def test_a_wrong_example_shape(shape: str, billhook: Billhook) -> None:
    outcome = billhook("inspect", NET, "--input", shape)
    check(outcome, 1, "does not run on the example inputs", "give example inputs with the shapes")


def test_a_network_that_cannot_be_captured(billhook: Billhook) -> None:
    outcome = billhook("inspect", f"{NETS}:data_dependent", *SHAPE)
    check(outcome, 1, "cannot be captured", "nets.py:", "if y.sum() > 0:", "move them out of forward")
    assert "def forward" not in outcome.stderr


def test_a_budget_that_cannot_be_met_names_what_can(billhook: Billhook) -> None:
    outcome = billhook("compress", NET, *SHAPE, "--budget", "macs=0.001", "--quiet")
    check(outcome, 3, "budget macs ≤", "cannot be met: the smallest allowed widths reach")
    assert "--resume" not in outcome.stderr


@pytest.mark.parametrize(("runtime", "extra"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_no_runtime_installed(
    runtime: str, extra: str, billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billhook.measure.backend.versions", lambda libraries: {})
    outcome = billhook("compress", NET, *SHAPE, *HALF, "--backend", runtime)
    missing, advice = f"the library '{runtime}', which is not installed", f'pip install "billhook[{extra}]"'
    check(outcome, 1, missing, advice)


def test_no_training_library_is_said_before_anything_runs(
    billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {"lightning-fabric"}
    monkeypatch.setattr(
        "billhook.pipeline.checks.versions", lambda names: {n: "1" for n in names if n not in missing}
    )
    outcome = billhook("compress", NET, "--data", "digits", *HALF, "--quiet")
    check(outcome, 1, "'lightning-fabric', which is not installed", 'pip install "billhook[train]"')
    assert not Path("runs").exists()


def test_a_runtime_that_cannot_be_imported(billhook: Billhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    outcome = billhook("compress", NET, *SHAPE, *HALF, "--quiet")
    check(outcome, 1, "onnxruntime", 'pip install "billhook[onnx]"', "--resume runs/")


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_broken_weights(damage: str, billhook: Billhook, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file(residual().state_dict(), file)
    content = {"truncated": file.read_bytes()[:-50], "empty": b"", "text": b"version https://git-lfs"}[damage]
    file.write_bytes(content)
    outcome = billhook("compress", NET, *SHAPE, *HALF, "--weights", file)
    check(outcome, 1, "w.safetensors is truncated or damaged")


def test_weights_of_another_network(billhook: Billhook, tmp_path: Path) -> None:
    save_file(residual(32).state_dict(), tmp_path / "w.safetensors")
    outcome = billhook("compress", NET, *SHAPE, *HALF, "--weights", "w.safetensors")
    check(outcome, 2, "does not fit this network", "stem.0.weight (file 32×1×3×3, model 16×1×3×3)")


def test_weights_that_would_run_code(billhook: Billhook, tmp_path: Path) -> None:
    torch.save({"state_dict": residual()}, tmp_path / "w.pth")
    outcome = billhook("compress", NET, *SHAPE, *HALF, "--weights", "w.pth")
    check(outcome, 1, "Python objects besides tensors, which are never loaded")


def test_a_folder_of_images_with_broken_files(billhook: Billhook, tmp_path: Path) -> None:
    for i in range(40):
        folder = tmp_path / "images" / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    outcome = billhook("compress", "small-vgg", "--data", "image-folder", "--data-dir", "images", *HALF)
    check(outcome, 1, "images")


def test_a_data_set_that_is_not_there(billhook: Billhook, tmp_path: Path) -> None:
    outcome = billhook("compress", "resnet-8", "--data", "cifar10", "--data-dir", tmp_path, *HALF)
    check(outcome, 1, "cifar10", "--data-dir", str(tmp_path))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory; tests copy it."""
    folder = tmp_path_factory.mktemp("finished")
    arguments = ("compress", NET, *SHAPE, *HALF, "--runs", folder, "--name", "it", "--quiet")
    outcome = billhook_command(*arguments)
    assert outcome.code == 0, outcome.stderr
    return folder / "it"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A run directory that may be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "it"))


def redo(run: Path, *stages: str) -> None:
    """Let `stages` be done again by a resumed run."""
    for stage in stages:
        (run / "stages" / f"{stage}.json").unlink()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "plan is not valid JSON"),
        ("[]", "not a billhook plan"),
        ('{"format": "billhook.plan/1"}', "plan is corrupted"),
    ],
)
def test_a_corrupted_plan(content: str, message: str, run: Path, billhook: Billhook) -> None:
    (run / "plan.json").write_text(content)
    redo(run, "prune")
    check(billhook("compress", "--resume", "it", "--quiet"), 1, "plan.json", message)


def test_the_plan_of_another_network(run: Path, billhook: Billhook) -> None:
    text = (run / "plan.json").read_text()
    fingerprint = text.partition('"fingerprint": "')[2][:8]
    (run / "plan.json").write_text(text.replace(fingerprint, "00000000"))
    redo(run, "prune")
    check(billhook("compress", "--resume", "it", "--quiet"), 1, "made for another network", "fingerprint")


def test_truncated_weights_in_a_run(run: Path, billhook: Billhook) -> None:
    weights = run / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    redo(run, "export")
    check(billhook("compress", "--resume", "it", "--quiet"), 1, "weights.safetensors is truncated")


def test_a_truncated_artifact(run: Path, billhook: Billhook) -> None:
    model = run / "artifacts/compressed/model.onnx"
    model.write_bytes(model.read_bytes()[:-100])
    check(billhook("measure", run / "artifacts/compressed", "--quiet"), 1, "model.onnx: truncated")


def test_a_file_that_is_no_artifact(billhook: Billhook, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    check(billhook("measure", "x.npy"), 1, "no manifest.json beside it")


def test_a_broken_stage_file(run: Path, billhook: Billhook) -> None:
    (run / "stages" / "decide.json").write_text("{")
    check(billhook("compress", "--resume", "it", "--quiet"), 1, "decide.json", "not valid JSON")


def test_a_recipe_in_a_run_that_somebody_broke(run: Path, billhook: Billhook) -> None:
    (run / "recipe.toml").write_text("[model]\nname = 3\n")
    check(billhook("compress", "--resume", "it", "--quiet"), 2, "it/recipe.toml:2: model.name")


def test_broken_results(run: Path, billhook: Billhook) -> None:
    (run / "results.json").write_text('{"format": "billhook.results/1", "name": 3}')
    check(billhook("report", "it"), 1, "results.json")


def test_a_report_of_nothing(billhook: Billhook) -> None:
    check(billhook("report", "nowhere"), 1, "nowhere: no results.json here")


def test_a_report_that_cannot_be_written(run: Path, billhook: Billhook) -> None:
    check(billhook("report", "it", "-o", "none/report.html", "--quiet"), 1, "none/report.html")


def test_debug_shows_where_an_error_comes_from(billhook: Billhook) -> None:
    outcome = billhook("inspect", "resnet-9", *SHAPE, "--debug")
    assert outcome.code == 2
    assert "Traceback" in outcome.stderr
    assert "NameNotFoundError" in outcome.stderr or "InputError" in outcome.stderr
