"""Shared by all tests: one thread, no silent skips in CI, and what a test may need from outside.

A test takes what it needs as a fixture: `torchvision`, `timm`, `transformers` (the modules), `chromium`
(path of the program), `fashion_mnist` (folder), `engine` (built and loaded). Where it is missing, the test is
skipped with the way to get it, and fails in CI.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Generator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import hypothesis
import pytest
import torch

from billhook.compile import layer_cache, tile_cache
from billhook.compile.library import library
from billhook.errors import EngineError
from tests.torchvision_ops import declare

# One thread: reproducible sums, and two workers do not fight for two cores.
torch.set_num_threads(1)

# Times on shared machines say nothing about an example; CI repeats the same examples in each run.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "local")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

INSTALL = "run scripts/setup --tests"


@pytest.fixture
def torchvision() -> ModuleType:
    """torchvision, importable also without its compiled part."""
    return _module("torchvision")


@pytest.fixture
def timm() -> ModuleType:
    """timm, the collection of image networks."""
    return _module("timm")


@pytest.fixture
def transformers() -> ModuleType:
    """transformers; only build networks from configurations, nothing can be downloaded."""
    return _module("transformers")


@pytest.fixture
def chromium() -> Path:
    """The program chromium, for tests that look at a page."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip(f"chromium is not installed; {INSTALL} as root")
    return Path(found)


@pytest.fixture
def fashion_mnist() -> Path:
    """The folder of the Debian package dataset-fashion-mnist."""
    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.is_dir():
        pytest.skip(f"the Debian package dataset-fashion-mnist is not installed; {INSTALL} as root")
    return folder


@pytest.fixture(scope="session", autouse=True)
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """What exports find out by timing is not kept in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        for cache in (layer_cache, tile_cache):
            folder = tmp_path_factory.mktemp(cache.__name__.rpartition(".")[2])
            patch.setattr(cache, "folder", partial(Path, folder))
        yield


@pytest.fixture(scope="session")
def engine() -> None:
    """billhook's own engine, built."""
    try:
        library()
    except EngineError as error:
        pytest.skip(f"{error}; or run scripts/engine")


def _module(name: str) -> ModuleType:
    declare()
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} cannot be imported ({error}); {INSTALL}")


# In CI everything that a test may need is installed, so a skip is a hole in the net. Hardware cannot be
# installed: a reason that begins with "hardware:" may skip.


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn skipped tests into failed ones in CI."""
    return _fail_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn skipped test files (`pytest.importorskip`) into failed ones in CI."""
    return _fail_if_skipped((yield))


def _fail_if_skipped(report: Report) -> Report:
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not reason.startswith("hardware:"):
            report.outcome = "failed"
            report.longrepr = f"skipped, which CI does not allow: {reason}"
    return report
