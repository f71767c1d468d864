"""All tests here run the engine."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def built(engine: None) -> None:
    """Skip where the engine is not built."""
