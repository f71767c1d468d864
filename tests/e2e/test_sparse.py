"""Zeros in weights through the command line: from options to a report, and what is said where that fails."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from billhook.graph.storage import read_tensors
from billhook.pipeline import compress as whole_run
from billhook.pipeline.order import STAGES
from billhook.run_record import Run
from tests.e2e.conftest import NETS, Billhook
from tests.e2e.test_bad_input import NET, SHAPE, check
from tests.e2e.test_resume import same_outcome, stopping_once

QUICK = """
[data]
batch = 64
[finetune]
steps = 4
[measure]
rounds = 1
seconds_per_round = 0.02
"""
RECIPE = f"""
[model]
name = "{NETS}:residual"
{QUICK.replace("[data]", "[data]" + chr(10) + 'name = "digits"')}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "r.toml"
    path.write_text(RECIPE)
    return path


@pytest.mark.slow
def test_a_network_gets_zeros_and_the_report_shows_them(
    billhook: Billhook, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--sparsity", "0.8", "--pattern", "4x1|1x1", "--budget", "macs=0.6", "--name", "it", "--quiet")
    outcome = billhook("compress", recipe, *given, "--json")
    assert outcome.code == 0, outcome.stderr
    results = outcome.data
    assert results["method"] == "l2 + magnitude"
    assert results["sparsity"]["held"] is True
    assert results["sparsity"]["kept"] / results["sparsity"]["weights"] == pytest.approx(0.2, abs=0.03)
    assert results["check"]["exact"]

    monkeypatch.setenv("COLUMNS", "160")  # a narrow table folds its titles
    report = billhook("report", "runs/it")
    assert report.code == 0
    for title in ("File size after gzip", "Stored weights", "Stored weights after gzip", "Zeros: "):
        assert title in report.stdout
    page = Path("runs/it/report.html").read_text()
    assert "Weights per layer" in page
    assert "<td>4x1</td>" in page
    assert {x.pattern for x in Run.load("runs/it").layers} == {"4x1", "1x1"}
    saved = Path("runs/it/recipe.toml").read_text()
    assert 'pattern = "4x1|1x1"' in saved


@pytest.mark.slow
def test_a_run_that_every_stage_stops_once_has_the_same_zeros(
    billhook: Billhook, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe.write_text(RECIPE + "[sparse.training]\nsteps = 5\ncheckpoint_steps = 1\n")
    given = ("--sparsity", "0.7", "--sparse-method", "admm", "--sparse-option", "rounds=3", "--quiet")
    assert billhook("compress", recipe, *given, "--name", "whole").code == 0
    tried: list[str] = []
    monkeypatch.setattr(whole_run, "STAGES", stopping_once(KeyboardInterrupt(), tried))
    outcome = billhook("compress", recipe, *given, "--name", "it")
    for _ in STAGES:
        if outcome.code == 0:
            break
        assert outcome.code == 130
        outcome = billhook("compress", "--resume", "runs/it", "--quiet")
    assert outcome.code == 0, outcome.stderr
    assert "sparsify" in tried
    same_outcome(Path("runs/it"), Path("runs/whole"))
    runs = [Run.load(Path("runs") / name) for name in ("it", "whole")]
    assert runs[0].results.notes == runs[1].results.notes
    assert runs[0].layers == runs[1].layers


def test_a_dry_run_shows_the_zeros_of_each_layer(billhook: Billhook) -> None:
    outcome = billhook("compress", NET, *SHAPE, "--sparsity", "0.5", "--dry-run", "--allocation", "uniform")
    assert outcome.code == 0, outcome.stderr
    assert "classifier.weight   10×16       4x1" in outcome.stdout
    assert not Path("runs").exists()
    rows = billhook("compress", NET, *SHAPE, "--sparsity", "0.5", "--dry-run", "--json").data["weights"]
    assert [row["tensor"] for row in rows][:2] == ["stem.0.weight", "expand.weight"]


def test_a_recipe_says_what_the_options_mean(billhook: Billhook) -> None:
    given = (
        "--sparsity",
        "0.5",
        "--sparse-method",
        "admm",
        "--sparse-option",
        "rounds=5",
        "--sparse-epochs",
        "3",
    )
    outcome = billhook("compress", NET, *given, "--exclude", "head*", "--save-recipe", "out.toml")
    assert outcome.code == 0
    table = Path("out.toml").read_text().partition("[sparse]")[2].partition("\n\n")[0]
    for line in ('method = "admm"', "sparsity = 0.5", "options = { rounds = 5 }", 'exclude = ["head*"]'):
        assert line in table
    assert "epochs = 3" in table


BOTH = (*SHAPE, "--budget", "macs=0.6", "--sparsity", "0.5", "--dry-run", "--json")


def test_channels_and_weights_have_a_scope_each(billhook: Billhook) -> None:
    whole = billhook("compress", NET, *BOTH).data
    # A batch norm has channels and no weights for zeros; the classifier has weights, and no channels to lose.
    shown = billhook("compress", NET, *BOTH, "--exclude", "norm", "--sparse-include", "classifier").data
    assert [row["tensor"] for row in shown["weights"]] == ["classifier.weight"]
    kept = {g["id"]: (g["kept"], g["size"]) for g in shown["groups"]}
    assert kept["expand"] == (32, 32)
    assert {row["tensor"] for row in whole["weights"]} > {"classifier.weight", "project.weight"}
    left = billhook("compress", NET, *BOTH, "--sparse-exclude", "project").data
    assert {row["tensor"] for row in whole["weights"]} - {row["tensor"] for row in left["weights"]} == {
        "project.weight"
    }
    assert left["groups"] == whole["groups"]


def test_without_a_budget_the_plain_options_are_for_weights(billhook: Billhook, recipe: Path) -> None:
    given = ("--sparsity", "0.5", "--dry-run", "--json")
    rows = billhook("compress", NET, *SHAPE, *given, "--include", "classifier").data["weights"]
    assert [row["tensor"] for row in rows] == ["classifier.weight"]
    assert (
        billhook("compress", NET, "--sparsity", "0.5", "--exclude", "stem", "--save-recipe", "a.toml").code
        == 0
    )
    recipe.write_text(RECIPE + "[budget]\nmacs = 0.5\n")  # the budget may stand in the recipe
    assert billhook("compress", recipe, "--exclude", "stem", "--save-recipe", "b.toml").code == 0
    for path, table, other in (("a.toml", "sparse", "prune"), ("b.toml", "prune", "sparse")):
        tables = tomllib.loads(Path(path).read_text())
        assert (tables[table]["exclude"], tables[other]["exclude"]) == (["stem"], [])


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["rules", "search:evaluations=2,latency=0.9,recalibration=1"])
def test_patterns_are_mapped_to_layers_in_a_run(billhook: Billhook, recipe: Path, pattern: str) -> None:
    if pattern.startswith("search"):
        pytest.importorskip("gymnasium")
    # Wide enough for zeros to pay by the latency model.
    given = ("--sparsity", "0.8", "--pattern", pattern, "--model-arg", "width=32", "--name", "it", "--quiet")
    outcome = billhook("compress", recipe, *given, "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.data["sparsity"]["held"] is True
    assert outcome.data["check"]["exact"]
    plan = json.loads(Path("runs/it/plan.json").read_text())
    choices = plan["made_by"]["mapping"]
    assert choices
    patterns = {x.layer: x.pattern for x in Run.load("runs/it").layers}
    assert patterns["depthwise"] == ""
    assert any(patterns.values())


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--sparsity", "1"), ("--sparsity: input should be less than 1",)),
        (("--sparsity", "-0.1"), ("--sparsity: input should be greater than or equal to 0",)),
        (("--sparsity", "nan"), ("--sparsity: input should be a finite number",)),
        (("--sparsity", "0.5", "--pattern", "blok_punched"), ("--pattern: ", "did you mean 'block_punched'")),
        (("--sparsity", "0.5", "--sparse-method", "admn"), ("--sparse-method: ", "did you mean 'admm'")),
        (("--sparsity", "0.5", "--allocation", "lmp"), ("--allocation: ", "did you mean 'lamp'")),
        (("--sparsity", "0.5", "--sparse-option", "x=1"), ("has no option 'x'",)),
        (("--sparsity", "0.5", "--sparse-option", "x"), ("--sparse-option 'x': write KEY=VALUE",)),
        (
            ("--sparsity", "0.5", "--pattern", "4x1"),
            ("every layer in scope: depthwise.weight [32, 1, 3, 3]", "4x1|dense"),
        ),
        (("--sparsity", "0.5", "--sparse-method", "admm"), ("learns from data: give --data",)),
        (("--sparsity", "0.5", "--exclude", "nothing"), ("'nothing' matches no layer or weight",)),
        (("--sparsity", "0.5", "--sparse-exclude", "norm"), ("'norm' matches no layer or weight",)),
        (
            ("--sparsity", "0.5", "--include", "stem", "--sparse-include", "stem"),
            ("without a budget, --include and --sparse-include both say",),
        ),
        (("--sparsity", "0.05", "--pattern", "rules"), ("the mapping 'rules' leaves every layer dense",)),
        (("--pattern", "4x1|dense"), ("there is no budget and no sparsity",)),
        (("--pattern", "1x1"), ("how many weights shall be zero? Give --sparsity 0.8",)),
        (("--sparse-method", "admm"), ("[sparse] says 'method', but not how many weights",)),
        ((), ("there is no budget and no sparsity", "--sparsity 0.8")),
    ],
)
def test_mistakes_get_one_clear_message(
    arguments: tuple[str, ...], parts: tuple[str, ...], billhook: Billhook
) -> None:
    check(billhook("compress", NET, *SHAPE, *arguments), 2, *parts)
    assert not Path("runs").exists()


def test_a_mistake_in_a_recipe_is_named_with_its_line(billhook: Billhook, recipe: Path) -> None:
    recipe.write_text(RECIPE + '[sparse]\nsparsity = 0.5\npattern = "5y1"\n')
    line = recipe.read_text().splitlines().index('pattern = "5y1"') + 1
    check(billhook("compress", recipe), 2, f"r.toml:{line}: sparse.pattern: unknown pattern '5y1'")


def test_sparse_methods_and_patterns_are_listed(billhook: Billhook) -> None:
    tables = billhook("methods", "--json").data
    assert {"admm", "magnitude"} <= {row["name"] for row in tables["sparse methods"]}
    assert "block_punched" in {row["name"] for row in tables["patterns"]}
    assert "sparse" not in {row["name"] for row in tables["methods"]}
    shown = billhook("methods").stdout
    assert "sparse methods:" in shown
    assert "patterns:" in shown


@pytest.mark.slow
def test_weights_of_another_plan_are_refused_when_a_run_goes_on(billhook: Billhook, recipe: Path) -> None:
    for name, sparsity in (("a", "0.5"), ("b", "0.8")):
        given = ("--sparsity", sparsity, "--epochs", "0", "--name", name, "--quiet")
        assert billhook("compress", recipe, *given).code == 0
    Path("runs/b/weights.safetensors").replace("runs/a/weights.safetensors")
    for stage in ("export", "measure", "score"):
        Path(f"runs/a/stages/{stage}.json").unlink()
    outcome = billhook("compress", "--resume", "runs/a", "--quiet")
    check(outcome, 1, "weights.safetensors", "has another structure than the plan demands")
    assert json.loads(Path("runs/a/results.json").read_text())["status"] == "failed"
    assert read_tensors("runs/a/weights.safetensors").keys()
