"""Searches through the command line: begun, killed, continued, shown, reported, and trials exported."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import billhook as bh
from billhook.data import load
from billhook.data._splits import Sealed
from billhook.graph import Plan
from billhook.run_record import Run
from billhook.search.driver import search
from billhook.search.objective import InheritedWeights
from billhook.search.studies import storage
from billhook.train import FitConfig, fit
from tests.arch.source import ROOT
from tests.e2e.conftest import NETS, Billhook, Outcome
from tests.e2e.nets import Blocks
from tests.search import problem

BLOCKS = f"{NETS}:blocks"
QUICK = ("--images", "60", "--calibration", "64", "--round-to", "1")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small network that knows its digits well enough for trials to differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Blocks(8)
    fit(model, load("digits").training(64), config=FitConfig(epochs=2, lr=0.2, precision="32-true"))
    path = tmp_path_factory.mktemp("weights") / "blocks.safetensors"
    save_file(model.state_dict(), path)
    return path


@pytest.fixture
def begin(billhook: Billhook, weights: Path) -> Callable[..., Outcome]:
    """Return what begins a search of that network."""

    def run(*arguments: str, method: str = "random", file: Path = weights, width: int = 8) -> Outcome:
        network = (BLOCKS, "--model-arg", f"width={width}", "--weights", file, "--data", "digits")
        return billhook("search", *network, "--method", method, *QUICK, *arguments)

    return run


@pytest.fixture(scope="module")
def study(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of 12 trials for half of the MACs; tests only read it."""
    from tests.e2e.conftest import billhook_command

    path = tmp_path_factory.mktemp("study") / "s.db"
    network = (BLOCKS, "--model-arg", "width=8", "--weights", weights, "--data", "digits")
    budget = ("--budget", "macs=0.5", "--trials", "12", "--study", path, "--seed", "3")
    outcome = billhook_command("search", *network, "--method", "tpe", *QUICK, *budget, "--quiet")
    assert outcome.code == 0, outcome.stderr
    return path


def trials(billhook: Billhook, study: str | Path) -> list[dict[str, Any]]:
    outcome = billhook("search", "show", study, "--json")
    assert outcome.code == 0, outcome.stderr
    found: list[dict[str, Any]] = outcome.data["trials"]
    return found


def test_a_search_says_what_it_does_and_what_it_has_found(
    begin: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sealed, "open", lambda self: pytest.fail("the test split was opened"))
    outcome = begin("--budget", "macs=0.5", "--trials", "6", "--study", "s.db", "--json")
    assert outcome.code == 0, outcome.stderr
    found = outcome.data
    assert found["finished"] == found["planned"] == 6
    assert [t["number"] for t in found["trials"]] == list(range(6))
    limit = found["limits"]["macs"]
    assert limit == pytest.approx(0.5 * found["original"]["macs"])
    assert all(t["costs"]["macs"] <= limit for t in found["trials"])
    assert found["best"]["accuracy"] == max(t["accuracy"] for t in found["trials"])
    assert found["original"]["macs"] == bh.cost(Blocks(8), torch.zeros(1, 1, 8, 8)).macs
    assert "trial 6 of 6: best " in outcome.stderr
    assert "billhook search report" in outcome.stderr


def test_the_same_command_goes_on_where_the_search_is(begin: Callable[..., Outcome]) -> None:
    budget = ("--budget", "macs=0.5", "--study", "s.db", "--json")
    first = begin(*budget, "--trials", "4").data["trials"]
    outcome = begin(*budget, "--trials", "7")
    assert "4 trials are finished already" in outcome.stderr
    assert outcome.data["trials"][:4] == first
    assert len(outcome.data["trials"]) == 7
    assert begin(*budget, "--trials", "7", "--quiet").stderr == ""


def test_an_interrupt_says_how_to_go_on_and_loses_nothing(
    begin: Callable[..., Outcome], billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = InheritedWeights.evaluate, iter(range(100))

    def impatient(self: InheritedWeights, genes: Any) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return real(self, genes)

    with monkeypatch.context() as patch:
        patch.setattr(InheritedWeights, "evaluate", impatient)
        outcome = begin("--budget", "macs=0.5", "--trials", "6", "--study", "s.db")
    assert outcome.code == 130
    place = str(Path("s.db").absolute())
    assert outcome.stderr.rstrip().endswith(f"go on with: billhook search resume {place}")
    before = trials(billhook, "s.db")
    assert len(before) == 3
    resumed = billhook("search", "resume", "s.db", "--json")
    assert resumed.code == 0, resumed.stderr
    assert resumed.data["trials"][:3] == before
    assert resumed.data["finished"] == 6
    more = billhook("search", "resume", "s.db", "--trials", "2", "--json")
    assert more.data["finished"] == 8
    assert more.data["trials"][:6] == resumed.data["trials"]


@pytest.mark.slow
def test_a_search_of_two_workers_that_is_killed_goes_on(
    billhook: Billhook, weights: Path, tmp_path: Path
) -> None:
    arguments = (BLOCKS, "--model-arg", "width=8", "--weights", str(weights), "--data", "digits", *QUICK)
    settings = ("--method", "random", "--budget", "macs=0.5", "--trials", "5000", "--workers", "2")
    process = subprocess.Popen(
        [sys.executable, "-m", "billhook", "search", *arguments, *settings, "--study", "s.db"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(600):
        if process.poll() is not None or _complete(tmp_path / "s.db") >= 6:
            break
        time.sleep(0.1)
    assert process.poll() is None, process.communicate()[1]
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = trials(billhook, "s.db")
    assert len(before) >= 6
    assert [t["number"] for t in before] == list(range(len(before)))
    outcome = billhook("search", "resume", "s.db", "--workers", "1", "--trials", "4", "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.data["trials"][: len(before)] == before
    assert outcome.data["finished"] == len(before) + 4


def _complete(path: Path) -> int:
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as connection:
        try:
            return int(connection.execute("SELECT COUNT(*) FROM trials WHERE state='COMPLETE'").fetchone()[0])
        except sqlite3.OperationalError:  # the tables are being made
            return 0


def test_a_study_is_shown_as_a_table_of_the_best_and_of_the_front(billhook: Billhook, study: Path) -> None:
    shown = billhook("search", "show", study, "--top", "3")
    assert shown.code == 0, shown.stderr
    assert "nets.py:blocks on digits; macs ≤ " in shown.stdout
    assert "12 of 12 trials finished" in shown.stdout
    best, front = shown.stdout.split("most accurate within the budget")[1].split("front of accuracy and macs")
    assert len([line for line in best.splitlines() if "%" in line]) == 3
    assert len([line for line in front.splitlines() if "%" in line]) == len(
        billhook("search", "show", study, "--json").data["front"]
    )


def test_a_report_is_one_page_with_the_command_for_every_point(
    billhook: Billhook, study: Path, tmp_path: Path
) -> None:
    outcome = billhook("search", "report", study, f"{study}#search", "-o", "page.html")
    assert outcome.code == 0, outcome.stderr
    page = (tmp_path / "page.html").read_text()
    front = billhook("search", "show", study, "--json").data["front"]
    assert all(f"billhook search export {study} --trial {number}" in page for number in front)


@pytest.mark.slow
def test_a_trial_becomes_a_finished_run(billhook: Billhook, study: Path, tmp_path: Path) -> None:
    found = billhook("search", "show", study, "--json").data
    outcome = billhook("search", "export", study, "--epochs", "1", "--name", "it", "--json", "--quiet")
    assert outcome.code == 0, outcome.stderr
    run = Run.load(tmp_path / "runs/it")
    assert run.results.status == "done"
    assert all(b.met for b in run.results.budget_met)
    plan = Plan.load(tmp_path / "runs/it/plan.json")
    assert plan.made_by["given"]["trial"] == found["best"]["number"]
    chosen = dict(zip((g["target"] for g in found["genes"]), found["best"]["genes"], strict=True))
    values = {g["target"]: g["values"] for g in found["genes"]}
    kept = {name: plan.counts[name] for name in chosen if name in plan.counts}
    assert kept == {name: values[name][i] for name, i in chosen.items() if name in kept}
    assert (tmp_path / "runs/it/report.html").is_file()
    pruned = next(p for p in run.results.trajectory if p.label == "pruned")
    assert pruned.accuracy == pytest.approx(found["best"]["accuracy"], abs=0.12)  # on 60 of 216 images


@pytest.mark.slow
def test_a_trial_that_was_judged_with_weights_of_a_searcher_starts_with_them(
    begin: Callable[..., Outcome], billhook: Billhook, tmp_path: Path
) -> None:
    options = (
        "--search-option",
        "epochs=1",
        "--search-option",
        "population=4",
        "--search-option",
        "hidden=2",
    )
    budget = ("--budget", "macs=0.3", "--trials", "8", "--study", "s.db", "--json")
    found = begin(*budget, *options, method="metapruning").data
    for start in ("judged", "kept"):
        outcome = billhook(
            "search", "export", "s.db", "--epochs", "0", "--start", start, "--name", start, "-q"
        )
        assert outcome.code == 0, outcome.stderr
    judged, kept = (
        next(p for p in Run.load(tmp_path / "runs" / name).results.trajectory if p.label == "pruned").accuracy
        for name in ("judged", "kept")
    )
    assert judged == pytest.approx(found["best"]["accuracy"], abs=0.12)  # on 60 of 216 images
    assert judged > kept + 0.1
    shutil.rmtree("s.db.d")
    outcome = billhook("search", "export", "s.db", "--epochs", "0", "--name", "lost")
    assert outcome.code == 1
    assert "pruning-net.safetensors is missing" in outcome.stderr
    assert billhook("search", "export", "s.db", "--start", "new").code == 2
    assert not Path("runs/lost").exists()


def test_the_plan_alone_or_the_recipe_of_the_run(billhook: Billhook, study: Path, tmp_path: Path) -> None:
    outcome = billhook("search", "export", study, "--trial", "2", "--plan-only", "p.json")
    assert outcome.code == 0, outcome.stderr
    assert Plan.load(tmp_path / "p.json").made_by["trial"] == 2
    assert billhook("search", "export", study, "--save-recipe", "r.toml", "--epochs", "3").code == 0
    dry = billhook("compress", "r.toml", "--dry-run", "--json")
    assert dry.code == 0, dry.stderr
    assert dry.data["after"]["macs"] <= 0.5 * dry.data["before"]["macs"]


@pytest.mark.slow
def test_densities_are_trained_into_the_weights_of_a_winner(
    begin: Callable[..., Outcome], billhook: Billhook, tmp_path: Path
) -> None:
    joint = ("--pattern", "4x1|dense", "--least-density", "0.4", "--metric", "params")
    outcome = begin(*joint, "--budget", "params=0.4", "--trials", "4", "--study", "s.db", "--json")
    assert outcome.code == 0, outcome.stderr
    assert {g["kind"] for g in outcome.data["genes"]} == {"channels", "density"}
    number = outcome.data["best"]["number"]
    training = ("--epochs", "1", "--settle-epochs", "1", "--sparse-epochs", "1")
    exported = billhook("search", "export", "s.db", *training, "--name", "it", "--quiet")
    assert exported.code == 0, exported.stderr
    run = Run.load(tmp_path / "runs/it")
    plan = Plan.load(tmp_path / "runs/it/plan.json")
    labels = [p.label for p in run.results.trajectory]
    assert labels == ["original", "pruned", "settled, epoch 1", "sparse", "fine-tuned, epoch 1"]
    assert run.results.method == "given + admm"
    trial = outcome.data["trials"][number]
    wanted = {
        g["target"]: g["values"][i]
        for g, i in zip(outcome.data["genes"], trial["genes"], strict=True)
        if g["kind"] == "density" and g["values"][i] < 1
    }
    assert plan.patterns.keys() == wanted.keys()
    for name, density in wanted.items():
        assert 1 - plan.patterns[name].sparsity == pytest.approx(density, abs=0.15)  # in whole blocks


def test_a_recipe_is_the_same_as_options(begin: Callable[..., Outcome], billhook: Billhook) -> None:
    saved = begin("--budget", "macs=0.5", "--trials", "3", "--study", "s.db", "--save-recipe", "r.toml")
    assert saved.code == 0, saved.stderr
    assert not Path("s.db").exists()
    outcome = billhook("search", "r.toml", "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.data["finished"] == 3
    again = billhook("search", "run", "r.toml", "--trials", "4", "--json")
    assert again.data["trials"][:3] == outcome.data["trials"]


def test_a_dry_run_shows_the_choices_and_the_budgets_within_reach(begin: Callable[..., Outcome]) -> None:
    outcome = begin("--dry-run", "--json", "--study", "s.db")
    assert outcome.code == 0, outcome.stderr
    assert all(g["kind"] == "channels" and g["values"][-1] in (8, 16) for g in outcome.data["genes"])
    macs = outcome.data["costs"]["macs"]
    assert 0 < macs["least"] < 0.1 * macs["most"]
    assert not Path("s.db").exists()
    words = begin("--dry-run", "--budget", "macs=0.5").stdout
    assert "candidates" in words
    assert "Least of original" in words


BAD_INPUT: dict[str, tuple[tuple[str, ...], int, str]] = {
    "budget": (
        ("--budget", "macs=0.001"),
        3,
        r"budget macs ≤ .* cannot be met: candidates of this search reach from .*% of the original\) to",
    ),
    "method": (("--method", "tpo"), 2, "unknown searcher 'tpo'; did you mean 'tpe'"),
    "option": (
        ("--method", "tpe", "--search-option", "startups=3"),
        2,
        "searcher 'tpe' has no option 'startups'; did you mean 'startup'",
    ),
    "repair": (("--repair", "magic"), 2, "--repair: must be one of 'none', 'reconstruct', 'recalibrate'"),
    "folder": (("--study", "no/such/folder/s.db"), 2, "the folder no/such/folder does not exist"),
    "url": (("--study", "mysql://somewhere/x"), 2, "a study cannot be kept in mysql://"),
    "server": (("--study", "postgresql://me:secret@127.0.0.1:1/x"), 1, "the server does not answer"),
    "scope": (("--include", "blokcs"), 2, "scope pattern 'blokcs' matches no group"),
    "nothing": (("--no-channels",), 2, "there is nothing to search"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_mistakes_are_named_before_the_first_trial(
    case: str, begin: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InheritedWeights, "evaluate", lambda *_: pytest.fail("a trial was evaluated"))
    given, code, message = BAD_INPUT[case]
    outcome = begin("--trials", "3", *given)
    assert outcome.code == code, outcome.stderr
    assert outcome.stdout == ""
    assert re.search(message, outcome.stderr.replace(f"{Path.cwd()}/", "")), outcome.stderr
    assert "secret" not in outcome.stderr


def test_a_budget_out_of_reach_leaves_no_study_behind(begin: Callable[..., Outcome]) -> None:
    assert begin("--budget", "macs=0.001", "--study", "s.db").code == 3
    assert not Path("s.db").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 12, "file": None}, r"another search space .*; another network "),
        ({"file": None}, r"another network"),
        ({"method": "tpe"}, r"another searcher \('random' there, 'tpe' here\)"),
        ({"--seed": "9"}, r"another seed \(0 there, 9 here\)"),
        ({"--budget": "macs=0.6"}, r"another budget"),
    ],
)
def test_a_study_of_another_search_is_refused(
    changes: dict[str, Any],
    message: str,
    begin: Callable[..., Outcome],
    billhook: Billhook,
    weights: Path,
    tmp_path: Path,
) -> None:
    assert begin("--budget", "macs=0.5", "--trials", "1", "--study", "s.db", "--quiet").code == 0
    options = {"--budget": "macs=0.5", **{k: v for k, v in changes.items() if k.startswith("--")}}
    if changes.get("file", "") is None:
        torch.manual_seed(1)
        save_file(Blocks(changes.get("width", 8)).state_dict(), tmp_path / "other.safetensors")
        changes = {**changes, "file": tmp_path / "other.safetensors"}
    given = [text for pair in options.items() for text in pair]
    settings = {k: v for k, v in changes.items() if not k.startswith("--")}
    outcome = begin(*given, "--trials", "2", "--study", "s.db", **settings)
    assert outcome.code == 1
    assert re.search(message, outcome.stderr), outcome.stderr
    assert "Give another file or another name" in outcome.stderr
    assert len(trials(billhook, "s.db")) == 1


def test_a_network_that_has_changed_since_is_not_exported(
    begin: Callable[..., Outcome], billhook: Billhook, weights: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.safetensors"
    save_file(load_file(weights), file)
    assert begin("--budget", "macs=0.5", "--trials", "1", "--study", "s.db", file=file).code == 0
    torch.manual_seed(1)
    save_file(Blocks(8).state_dict(), file)
    outcome = billhook("search", "export", "s.db", "--plan-only", "p.json")
    assert outcome.code == 1
    assert "other weights than when the search began" in outcome.stderr
    assert not Path("p.json").exists()


def test_a_study_that_another_process_has_locked(
    begin: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert begin("--budget", "macs=0.5", "--trials", "1", "--study", "s.db").code == 0
    monkeypatch.setattr(storage, "LOCKED_AFTER", 0.2)
    with closing(sqlite3.connect("s.db", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        outcome = begin("--budget", "macs=0.5", "--trials", "2", "--study", "s.db")
    assert outcome.code == 1
    assert "another process has locked it" in outcome.stderr
    assert "go on with: billhook search resume" in outcome.stderr


def test_a_study_that_must_not_be_written_can_be_looked_at(
    begin: Callable[..., Outcome], billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert begin("--budget", "macs=0.5", "--trials", "1", "--study", "s.db").code == 0
    real = sqlite3.connect  # who runs the tests as root may write everything
    monkeypatch.setattr(sqlite3, "connect", lambda path, **k: real(f"file:{path}?mode=ro", uri=True, **k))
    assert len(trials(billhook, "s.db")) == 1
    outcome = billhook("search", "resume", "s.db", "--trials", "1")
    assert outcome.code == 1
    assert "s.db: must not be written; change its permissions" in outcome.stderr


def test_an_accuracy_that_is_no_number_ends_the_search(
    begin: Callable[..., Outcome], weights: Path, tmp_path: Path
) -> None:
    tensors = load_file(weights)
    tensors["classifier.bias"][0] = float("nan")
    save_file(tensors, tmp_path / "nan.safetensors")
    outcome = begin("--budget", "macs=0.5", "--study", "s.db", file=tmp_path / "nan.safetensors")
    assert outcome.code == 2
    assert re.search(r"trial 0 has .* a loss of nan: look at the weights, the data", outcome.stderr)


@pytest.mark.slow
def test_a_ray_address_that_does_not_answer(begin: Callable[..., Outcome]) -> None:
    outcome = begin("--budget", "macs=0.5", "--study", "s.db", "--ray", "127.0.0.1:1")
    assert outcome.code == 2
    assert "no Ray cluster answers at '127.0.0.1:1'" in outcome.stderr


@pytest.mark.parametrize("command", ["show", "resume", "export"])
def test_what_is_no_study_is_refused(command: str, billhook: Billhook, tmp_path: Path) -> None:
    missing = billhook("search", command, "none.db")
    assert missing.code == 1
    assert "none.db: there is no study here" in missing.stderr
    (tmp_path / "text.db").write_text("hello " * 100)
    other = billhook("search", command, "text.db")
    assert other.code == 1
    assert "text.db: is not a SQLite data base" in other.stderr


def test_names_of_studies_and_numbers_of_trials_that_do_not_exist(billhook: Billhook, study: Path) -> None:
    named = billhook("search", "show", study, "--study-name", "searhc")
    assert named.code == 1
    assert "there is no study 'searhc' here; did you mean 'search'" in named.stderr
    number = billhook("search", "export", study, "--trial", "77")
    assert number.code == 2
    assert "there is no finished trial 77; there are 12, from 0 on" in number.stderr


def test_a_search_without_a_budget_has_no_best_trial(
    begin: Callable[..., Outcome], billhook: Billhook
) -> None:
    assert begin("--trials", "2", "--study", "s.db", method="nsga2").code == 0
    outcome = billhook("search", "export", "s.db")
    assert outcome.code == 2
    assert "no trial is the best: choose one of its front with --trial N" in outcome.stderr


def test_a_study_that_was_begun_in_python_can_be_shown_but_not_resumed(
    billhook: Billhook, tmp_path: Path
) -> None:
    search(problem("plain", bh.Budget(macs=0.5)), "random", trials=2, study=tmp_path / "s.db")
    assert len(trials(billhook, "s.db")) == 2
    outcome = billhook("search", "resume", "s.db")
    assert outcome.code == 1
    assert "has no recipe, because it was not begun with billhook search" in outcome.stderr


def test_a_search_needs_data_and_a_trained_network(billhook: Billhook) -> None:
    outcome = billhook("search", BLOCKS, "--input", "1x1x8x8", "--budget", "macs=0.5")
    assert outcome.code == 2
    assert "judges candidates by their accuracy: give --data" in outcome.stderr
    Path("r.toml").write_text('[model]\nname = "resnet-8"\n[data]\nname = "digits"\n[train]\nepochs = 1\n')
    outcome = billhook("search", "r.toml", "--budget", "macs=0.5")
    assert outcome.code == 2
    assert "give its weights with --weights" in outcome.stderr


def test_help_lists_the_commands_and_how_a_search_begins(billhook: Billhook) -> None:
    text = billhook("search", "--help").stdout
    assert "billhook search MODEL --data NAME --budget macs=0.5" in text
    assert all(f"  {name} " in text for name in ("run", "resume", "show", "report", "export"))
    assert "--trials" in billhook("search", "run", "--help").stdout
