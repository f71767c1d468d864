"""scripts/update_tables: benchmark results become tables, and an outdated table is noticed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from billhook.results import Measurement
from tests.arch.source import ROOT

PAGE = "# Title\n\n<!-- table:latency{columns} -->\n<!-- /table -->\n\nThe end.\n"
ROWS = [
    {
        "network": "resnet-20",
        "median": Measurement(0.0081, "s", 7, 0.008, 0.0084).to_dict(),
        "macs": 40_560_000,
        "kept": 0.5123456,
        "verified": True,
        "details": [1, 2],
    },
    {"network": "a|b", "median": Measurement(2.5e6, "B").to_dict(), "macs": 12},
    {"note": "One thread, batch 1."},
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with one page, one results file and the script."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/update_tables", tmp_path / "scripts")
    (tmp_path / "README.md").write_text(PAGE.format(columns=""))
    results = tmp_path / "benchmarks/results/latency.jsonl"
    results.parent.mkdir(parents=True)
    results.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def _run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "scripts/update_tables", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(program, cwd=tree, env=environment, capture_output=True, text=True, check=False)


def test_results_become_a_table_and_the_page_stays_as_it_was(tree: Path) -> None:
    assert _run(tree).returncode == 0
    assert (tree / "README.md").read_text() == (
        "# Title\n\n<!-- table:latency -->\n"
        "| network | median | macs | kept | verified |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| resnet-20 | 8.10 ms ± 2% | 40,560,000 | 0.5123 | yes |\n"
        "| a\\|b | 2.50 MB | 12 |  |  |\n\n"
        "One thread, batch 1.\n"
        "<!-- /table -->\n\nThe end.\n"
    )


def test_columns_can_be_chosen(tree: Path) -> None:
    (tree / "README.md").write_text(PAGE.format(columns=" columns=macs,network"))
    _run(tree)
    assert (
        "| macs | network |\n| ---: | --- |\n| 40,560,000 | resnet-20 |\n" in (tree / "README.md").read_text()
    )


def test_an_outdated_table_fails_the_check_and_stays(tree: Path) -> None:
    before = (tree / "README.md").read_text()
    done = _run(tree, "--check")
    assert done.returncode == 1
    assert "README.md: is out of date" in done.stderr
    assert (tree / "README.md").read_text() == before
    _run(tree)
    assert _run(tree, "--check").returncode == 0


def test_a_table_without_results_says_so(tree: Path) -> None:
    (tree / "benchmarks/results/latency.jsonl").unlink()
    _run(tree)
    assert "_Not measured yet" in (tree / "README.md").read_text()


@pytest.mark.parametrize(
    ("line", "message"), [("{", "latency.jsonl:1: not JSON"), ("[]", "latency.jsonl:1: expected an object")]
)
def test_a_broken_results_file_is_named_with_its_line(tree: Path, line: str, message: str) -> None:
    (tree / "benchmarks/results/latency.jsonl").write_text(line + "\n")
    done = _run(tree)
    assert done.returncode == 1
    assert message in done.stderr


def test_an_unknown_column_lists_those_that_exist(tree: Path) -> None:
    (tree / "README.md").write_text(PAGE.format(columns=" columns=mac"))
    assert "there are: network, median, macs" in _run(tree).stderr
