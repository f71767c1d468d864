"""One build of the engine for aarch64 for all tests here."""

from __future__ import annotations

import pytest

from tests.unit.compile.aarch64.emulator import Emulator


@pytest.fixture(scope="session")
def aarch64(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    """The engine for aarch64, ready to run under qemu."""
    return Emulator(tmp_path_factory.mktemp("aarch64"))
