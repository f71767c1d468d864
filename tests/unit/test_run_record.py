from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from billhook.errors import StorageError
from billhook.results import Measurement
from billhook.run_record import (
    MAX_TEXT_BYTES,
    METRICS,
    Distance,
    LayerChange,
    Results,
    Row,
    Run,
    Sparsity,
    save_groups,
    save_layers,
)
from tests.unit.report.fabricated import DIRECTORY, one_run

MINIMAL = Results("early", "net", "", "2026-01-02T03:04:05+00:00", "failed")


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DIRECTORY, tmp_path / "run"))


def results_file() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((DIRECTORY / "results.json").read_text())
    return data


def test_results_survive_json() -> None:
    results = one_run().results
    assert Results.from_dict(json.loads(json.dumps(results.to_dict()))) == results
    assert Results.from_dict(MINIMAL.to_dict()) == MINIMAL
    newer = {"sparsity": None, "distances": []}  # the file is older than patterns
    assert results.to_dict() == {**results_file(), **newer}


def test_layers_of_an_older_run_have_no_patterns(run_directory: Path) -> None:
    old = json.loads((run_directory / "layers.json").read_text())
    assert set(old[0]) == {"layer", "kind", "before", "after"}
    assert {(x.weights, x.kept, x.pattern) for x in Run.load(run_directory).layers} == {(0, 0, "")}


def test_patterns_of_a_run_read_back(tmp_path: Path) -> None:
    sparsity = Sparsity(tensors=1, weights=100, kept=20, numbers=10, held=True)
    distances = (Distance(0, 0.5, 0.1), Distance(8, 0.05, None))
    replace(MINIMAL, sparsity=sparsity, distances=distances).save(tmp_path)
    layer = LayerChange("a", "linear", 10, 10, weights=100, kept=20, pattern="4x1")
    save_layers(tmp_path, [layer])
    run = Run.load(tmp_path)
    assert run.results.sparsity == sparsity
    assert run.results.distances == distances
    assert run.layers == (layer,)


def test_a_written_run_reads_back(tmp_path: Path) -> None:
    run = one_run()
    groups = json.loads((DIRECTORY / "groups.json").read_text())
    run.results.save(tmp_path)
    save_layers(tmp_path, run.layers)
    save_groups(tmp_path, groups)
    read = Run.load(tmp_path)
    assert (read.results, read.layers, read.groups) == (run.results, run.layers, run.groups)
    assert (read.recipe, read.environment) == ("", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["groups.json", "layers.json", "results.json"]


def test_results_may_be_saved_again_while_the_run_goes_on(tmp_path: Path) -> None:
    MINIMAL.save(tmp_path)
    replace(MINIMAL, status="done").save(tmp_path)
    assert Run.load(tmp_path).results.status == "done"


def test_a_row_is_found_by_its_metric() -> None:
    row = one_run().results.row("latency")
    assert row is not None
    assert row.before.value == 0.00812
    assert MINIMAL.row("latency") is None
    assert {r.metric for r in one_run().results.rows} <= set(METRICS)


def test_values_in_different_units_are_not_compared() -> None:
    with pytest.raises(StorageError, match=r"latency: the units differ \('s' before, 'ms' after\)"):
        Row("latency", Measurement(1, "s"), Measurement(1, "ms"), "lower")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("format"), "expected format 'billhook.results/1', found None"),
        (lambda d: d.update(format="billhook.results/9"), "found 'billhook.results/9'"),
        (lambda d: d.pop("model"), "entry 'model' is missing"),
        (lambda d: d.update(stats="done"), "unknown entry 'stats'; did you mean 'status'"),
        (
            lambda d: d.update(status="fine"),
            "status: expected one of done, interrupted, failed, found 'fine'",
        ),
        (lambda d: d.update(rows={}), "rows: expected a list, found a dict"),
        (lambda d: d["rows"][0].update(metric="speed"), r"rows\[0\]\.metric: expected one of latency, "),
        (
            lambda d: d["rows"][2]["after"].update(value="x"),
            r"rows\[2\]\.after\.value: expected a finite number",
        ),
        (lambda d: d["rows"][0]["after"].update(unit="ms"), r"rows\[0\]: latency: the units differ"),
        (
            lambda d: d["history"][1].update(epoch=1.5),
            r"history\[1\]\.epoch: expected a whole number, found 1.5",
        ),
        (lambda d: d.update(notes=[3]), r"notes\[0\]: expected text, found 3"),
        (lambda d: d["check"].update(exact=1), "check.exact: expected true or false, found 1"),
        (lambda d: d.update(latency_ratio=2.3), "latency_ratio: expected a table of names, found 2.3"),
    ],
)
def test_a_malformed_results_file_is_named_with_the_entry(
    run_directory: Path, change: Any, message: str
) -> None:
    data = results_file()
    change(data)
    (run_directory / "results.json").write_text(json.dumps(data))
    with pytest.raises(StorageError, match=rf"run/results\.json.*{message}"):
        Run.load(run_directory)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("layers.json", "{}", "expected a list, found a dict"),
        ("layers.json", '[{"layer": "a"}]', r"layers\.json\[0\]: entry 'kind' is missing"),
        ("groups.json", '[{"id": 3}]', r"groups\.json\[0\]"),
        ("environment.json", "[]", "expected a table of names, found a list"),
        ("environment.json", "{", "is not valid JSON"),
        ("recipe.toml", "x" * (MAX_TEXT_BYTES + 1), "larger than 1048576 bytes"),
    ],
)
def test_other_malformed_files_are_named(run_directory: Path, name: str, content: str, message: str) -> None:
    (run_directory / name).write_text(content)
    with pytest.raises(StorageError, match=message) as caught:
        Run.load(run_directory)
    assert name in str(caught.value)


def test_a_directory_without_results_is_explained(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no results\.json here; is it a run directory"):
        Run.load(tmp_path)


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"rows\[0\]"):
        replace(MINIMAL, rows=(Row("speed", Measurement(1, "s"), Measurement(1, "s"), "lower"),)).save(
            tmp_path
        )
    with pytest.raises(StorageError, match="entry 'kept' is missing"):
        save_groups(tmp_path, [{k: v for k, v in g.items() if k != "kept"} for g in groups()])
    with pytest.raises(StorageError, match=r"layers\.json\[0\]\.before: cannot write nan"):
        save_layers(tmp_path, [LayerChange("a", "linear", float("nan"), 1)])  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def groups() -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = json.loads((DIRECTORY / "groups.json").read_text())
    return data
