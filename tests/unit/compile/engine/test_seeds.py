"""Fuzzing begins with files that have everything a file can have."""

from __future__ import annotations

import numpy as np
import pytest

from billhook.compile.format import ACTIVATIONS, KINDS
from billhook.compile.session import EngineSession
from tests.unit.compile.engine.builder import VECTOR
from tests.unit.compile.engine.seeds import contents, seeds

MOST_BYTES = 16384  # small, so that damage finds what decides


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return dict(seeds())


def test_every_kind_and_activation_is_in_a_seed(files: dict[str, bytes]) -> None:
    found = set().union(*map(contents, files.values()))
    assert set(KINDS) - found == set(), "fuzzing would not reach these; add a network to seeds.py"
    assert set(ACTIVATIONS) - found == set(), "the same for activations"


def test_seeds_are_small_models_that_run(files: dict[str, bytes]) -> None:
    for name, file in files.items():
        assert len(file) < MOST_BYTES, name
        with EngineSession(file) as session:
            found = session.run([np.ones((1, *port.shape), np.float32) for port in session.inputs])
            assert all(np.isfinite(x).all() for x in found), name
            assert session.arena < 4 * 4096 * VECTOR, name
