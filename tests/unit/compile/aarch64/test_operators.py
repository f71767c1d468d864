"""The tests of single operators once more, on the kernels for NEON: margins, tails and all."""

from __future__ import annotations

import pytest

from tests.unit.compile.aarch64.emulator import Emulator
from tests.unit.compile.engine import builder, test_element_wise, test_matrix, test_session, test_spatial


@pytest.fixture(autouse=True)
def _emulated(aarch64: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "EngineSession", aarch64.session)
    monkeypatch.setattr(test_session, "EngineSession", aarch64.session)
    monkeypatch.setattr(builder, "isas", lambda: ("neon",))
    monkeypatch.setattr(builder, "THREADS", (2,))
    monkeypatch.setattr(builder, "BATCHES", (3,))


for _module in (test_element_wise, test_matrix, test_spatial):
    globals().update({name: test for name, test in vars(_module).items() if name.startswith("test_")})

test_denormal_numbers_are_zeros = test_session.test_denormal_numbers_are_zeros_and_stay_what_they_are_outside
