"""Each command, as a person or a program uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import NETS, Billhook, billhook_command

NET = f"{NETS}:residual"
SHAPE = ("--input", "1x1x8x8")
HALF = ("--budget", "macs=0.5")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory that nobody changes."""
    folder = tmp_path_factory.mktemp("finished")
    outcome = billhook_command("compress", NET, *SHAPE, *HALF, "--runs", folder, "--name", "it", "--quiet")
    assert outcome.code == 0, outcome.stderr
    return folder / "it"


def test_inspect_shows_groups_costs_and_what_is_frozen_why(billhook: Billhook) -> None:
    outcome = billhook("inspect", NET, *SHAPE)
    assert outcome.code == 0
    assert "classifier" in outcome.stdout
    assert "model output" in outcome.stdout
    assert "MACs" in outcome.stdout
    assert outcome.stderr == ""


def test_inspect_as_json_has_the_same(billhook: Billhook) -> None:
    data = billhook("inspect", NET, "--model-arg", "width=8", *SHAPE, "--json").data
    groups = {g["id"]: g for g in data["groups"]}
    assert groups["stem.0"]["size"] == 8
    assert groups["classifier"]["frozen"] == "model output"
    assert set(data["cost"]) == {"macs", "params", "bytes", "peak_activation_bytes"}


def test_inspect_shows_what_can_be_fused(billhook: Billhook) -> None:
    outcome = billhook("inspect", NET, *SHAPE, "--fuse", "aggressive")
    assert outcome.stdout.startswith("shortcut: add_identity at project\n")
    assert "project.copies" in outcome.stdout

    data = billhook("inspect", NET, *SHAPE, "--fuse", "aggressive", "--json").data
    assert data["fused"] == [{"pass": "shortcut", "at": "project", "operator": "add_identity"}]
    assert data["not_fused"] == []
    groups = {g["id"] for g in data["groups"]}
    assert {"stem.0", "project", "project.copies"} <= groups
    plain = billhook("inspect", NET, *SHAPE, "--json").data
    assert "fused" not in plain
    assert groups > {g["id"] for g in plain["groups"]}
    assert data["cost"]["macs"] == plain["cost"]["macs"]


def test_a_dry_run_shows_the_plan_and_writes_nothing(billhook: Billhook, tmp_path: Path) -> None:
    outcome = billhook("compress", NET, *SHAPE, *HALF, "--dry-run")
    assert outcome.code == 0
    assert "Kept" in outcome.stdout
    assert "Compressed" in outcome.stdout
    assert list(tmp_path.iterdir()) == []

    data = billhook("compress", NET, *SHAPE, *HALF, "--dry-run", "--json").data
    assert data["after"]["macs"] <= 0.5 * data["before"]["macs"]
    assert any(g["kept"] < g["size"] for g in data["groups"])


def test_a_dry_run_says_what_is_fused(billhook: Billhook, tmp_path: Path) -> None:
    fused = ("--fuse", "aggressive", "--dry-run")
    outcome = billhook("compress", NET, *SHAPE, *HALF, *fused)
    assert outcome.stdout.startswith("fused: add_identity at project\n")
    plan = billhook("compress", NET, *SHAPE, *HALF, *fused, "--json").data["plan"]
    assert [f["at"] for f in plan["fusions"]] == ["project"]
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_decides_what_the_run_decides(billhook: Billhook, finished: Path) -> None:
    data = billhook("compress", finished / "recipe.toml", "--dry-run", "--json").data
    plan = (finished / "plan.json").read_text()
    assert all(f'"keep": "{group["keep"]}"' in plan for group in data["plan"]["groups"].values())


def test_options_and_the_recipe_they_make_are_one_thing(billhook: Billhook, tmp_path: Path) -> None:
    options = (
        NET,
        *SHAPE,
        "--budget",
        "macs=0.5,params=60%",
        "--exclude",
        "stem*",
        "--round-to",
        "4",
        "--seed",
        "3",
    )
    outcome = billhook("compress", *options, "--save-recipe", "r.toml")
    assert outcome.code == 0
    assert [p.name for p in tmp_path.iterdir()] == ["r.toml"]
    by_options = billhook("compress", *options, "--dry-run", "--json").data
    by_recipe = billhook("compress", "r.toml", "--dry-run", "--json").data
    assert by_options == by_recipe


def test_options_override_a_recipe(billhook: Billhook, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(
        f'[model]\nname = "{NET}"\nargs = {{ width = 8 }}\ninput = ["1x1x8x8"]\n[budget]\nmacs = 0.5\n'
    )
    arguments = (
        "compress",
        "r.toml",
        "--budget",
        "params=0.7",
        "--model-arg",
        "width=32",
        "--save-recipe",
        "out.toml",
    )
    assert billhook(*arguments).code == 0
    written = (tmp_path / "out.toml").read_text()
    assert "width = 32" in written
    assert "[budget]\nparams = " in written
    assert "macs" not in written


def test_a_scope_is_kept_to(billhook: Billhook) -> None:
    data = billhook("compress", NET, *SHAPE, *HALF, "--exclude", "stem*", "--dry-run", "--json").data
    assert [g["id"] for g in data["groups"] if g["kept"] < g["size"]] == ["expand"]


def test_names_of_runs_count_up(billhook: Billhook, tmp_path: Path) -> None:
    for _ in range(2):
        billhook("compress", NET, *SHAPE, "--budget", "macs=0.001", "--quiet")  # ends early: cannot be met
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["residual_l2", "residual_l2-2"]


def test_measure_compares_with_the_original(billhook: Billhook, finished: Path) -> None:
    artifacts = finished / "artifacts"
    quick = ("--rounds", "2", "--seconds", "0.03")
    outcome = billhook(
        "measure", artifacts / "compressed", "--against", artifacts / "original", *quick, "--json", "--quiet"
    )
    assert outcome.code == 0, outcome.stderr
    assert list(outcome.data) == ["original", "compressed"]
    latency = outcome.data["compressed"]["latency"]
    assert latency["unit"] == "s"
    assert latency["conditions"]["against"] == "original"
    table = billhook("measure", artifacts / "compressed", *quick).stdout
    assert "compressed" in table
    assert "Median" in table


def test_report_of_one_run_and_of_several(billhook: Billhook, finished: Path, tmp_path: Path) -> None:
    outcome = billhook("report", finished, "-o", "one.html")
    assert outcome.code == 0
    assert "Latency" in outcome.stdout
    assert outcome.stderr == "report: one.html\n"
    outcome = billhook("report", finished, finished, "--json")
    assert [r["name"] for r in outcome.data["runs"]] == ["it", "it"]
    assert (tmp_path / "report.html").is_file()


def test_export_makes_an_artifact_that_measure_takes(billhook: Billhook, tmp_path: Path) -> None:
    outcome = billhook("export", NET, *SHAPE, "-o", "exported", "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.data["opset"] >= 17
    assert (tmp_path / "exported" / "manifest.json").is_file()
    outcome = billhook("export", NET, *SHAPE, "-o", "exported")
    assert outcome.code == 1
    assert "is never overwritten" in outcome.stderr
    outcome = billhook("export", NET, *SHAPE, "--backend", "billhook", "-o", "engine")
    assert "model.bhk" in outcome.stdout
    assert "opset" not in outcome.stdout


def test_methods_lists_everything_that_has_a_name(billhook: Billhook) -> None:
    outcome = billhook("methods")
    assert outcome.code == 0
    for name in ("l2", "one_shot", "uniform", "onnxruntime", "fashion-mnist", "resnet-20"):
        assert name in outcome.stdout
    data = billhook("methods", "--json").data
    assert {"name", "kind", "title", "source", "needs_data", "trains"} <= set(data["methods"][0])


def test_quiet_leaves_stderr_empty(billhook: Billhook) -> None:
    outcome = billhook("compress", NET, *SHAPE, *HALF, "--dry-run", "--quiet")
    assert outcome.stderr == ""


def test_a_reader_that_has_seen_enough_is_no_error(finished: Path) -> None:
    code = f"{sys.executable} -m billhook inspect {NET} --input 1x1x8x8 | head -n 1; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_help_of_every_command_names_its_options(billhook: Billhook) -> None:
    for command in ("inspect", "compress", "export", "compile", "measure", "report", "methods"):
        outcome = billhook(command, "--help")
        assert outcome.code == 0
        for option in ("--json", "--quiet", "--debug"):
            assert option in outcome.stdout


def test_version(billhook: Billhook) -> None:
    import billhook as package

    assert billhook("--version").stdout.strip() == package.__version__
