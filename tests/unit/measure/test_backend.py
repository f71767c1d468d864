from __future__ import annotations

import pytest

from billhook.errors import NameNotFoundError
from billhook.measure import Rounding, backends


@pytest.mark.parametrize(
    ("channels", "multiple"), [(1, 4), (16, 4), (31, 4), (32, 8), (63, 8), (64, 16), (2048, 16)]
)
def test_wide_layers_are_rounded_coarsely_and_narrow_ones_keep_a_choice(channels: int, multiple: int) -> None:
    assert Rounding().multiple(channels) == multiple


def test_no_multiple_is_below_the_minimum() -> None:
    assert {Rounding(preferred=8, minimum=8).multiple(n) for n in range(1, 200)} == {8}


def test_the_backends_are_known_by_name_and_close_names_are_suggested() -> None:
    assert "onnxruntime" in backends.names()
    with pytest.raises(NameNotFoundError, match="did you mean 'onnxruntime'"):
        backends.get("onnx-runtime")
