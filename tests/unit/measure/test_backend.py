from __future__ import annotations

import pytest

from billhook.errors import NameNotFoundError
from billhook.measure import Rounding, backends


def test_wide_layers_are_rounded_coarsely_and_narrow_ones_keep_a_choice() -> None:
    assert [n for n in range(1, 70) if Rounding().fits(n)] == [4, 8, 12, 16, 32, 48, 64]


def test_one_multiple_can_hold_everywhere() -> None:
    assert [n for n in range(1, 40) if Rounding(preferred=8, minimum=8).fits(n)] == [8, 16, 24, 32]


def test_the_backends_are_known_by_name_and_close_names_are_suggested() -> None:
    assert "onnxruntime" in backends.names()
    with pytest.raises(NameNotFoundError, match="did you mean 'onnxruntime'"):
        backends.get("onnx-runtime")
