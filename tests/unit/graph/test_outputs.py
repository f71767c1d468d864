"""Names of results follow their place."""

from __future__ import annotations

from collections import namedtuple

import pytest
from torch.utils import _pytree as pytree

from billhook.graph.outputs import output_name

Pair = namedtuple("Pair", ["left", "right"])


@pytest.mark.parametrize(
    ("results", "names"),
    [
        (1, ["output"]),
        ((1, 2), ["output_0", "output_1"]),
        ({"out": 1, "aux": [2, 3]}, ["out", "aux_0", "aux_1"]),
        ([Pair(1, 2)], ["output_0_left", "output_0_right"]),
    ],
)
def test_a_result_is_called_after_its_place(results: object, names: list[str]) -> None:
    paths, _ = pytree.tree_flatten_with_path(results)
    assert [output_name(path) for path, _ in paths] == names
