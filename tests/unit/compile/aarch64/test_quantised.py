"""Networks in 8 bits once more, on the kernels for NEON with and without its dot products."""

from __future__ import annotations

import pytest

from tests.unit.compile.aarch64.emulator import Emulator
from tests.unit.compile.engine import test_quantised


@pytest.fixture(autouse=True)
def _emulated(aarch64: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_quantised, "EngineSession", aarch64.session)
    monkeypatch.setattr(test_quantised, "isas", lambda: ("portable", "neon", "dotprod"))
    monkeypatch.setattr(test_quantised, "THREADS", (2,))


globals().update({name: test for name, test in vars(test_quantised).items() if name.startswith("test_")})
