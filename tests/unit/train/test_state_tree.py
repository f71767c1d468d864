from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from billhook.errors import InputError
from billhook.train.state_tree import byte_view, join, own_storage, split


def round_trip(value: Any) -> Any:
    tensors: dict[str, Tensor] = {}
    return join(json.loads(json.dumps(split(value, "state", tensors))), tensors)


def test_types_keys_and_numbers_survive() -> None:
    value = {
        "state": {0: {"buffer": torch.arange(3.0)}, 1: {}},
        "groups": [{"lr": 0.1 + 0.2, "betas": (0.9, 0.999), "fused": None, "nesterov": True}],
        "tensor": {"a.b": torch.tensor(2)},
        "": [],
    }
    back = round_trip(value)
    assert torch.equal(back["state"][0].pop("buffer"), torch.arange(3.0))
    assert back["tensor"].pop("a.b") == 2
    value["state"][0].clear(), value["tensor"].clear()
    assert back == value
    assert isinstance(back["groups"][0]["betas"], tuple)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [np.zeros(2)]}, r"state\.a\[0\] is a ndarray"),
        ({"a": {1.5: 2}}, r"state\.a has the key 1\.5"),
        ({"f": len}, r"state\.f is a builtin_function_or_method"),
    ],
)
def test_what_cannot_be_saved_is_named(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split(value, "state", {})


@pytest.mark.parametrize(
    "tree", [{"tensor": "absent"}, {"object": 1}, {"list": [], "dict": []}, {"dict": [1]}]
)
def test_a_tree_from_elsewhere_is_refused(tree: Any) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        join(tree, {})


def test_tensors_that_share_memory_become_their_own() -> None:
    base = torch.arange(6.0)
    plain = own_storage({"a": base, "b": base, "c": base[2:], "d": base.view(2, 3).t()})
    assert len({t.untyped_storage().data_ptr() for t in plain.values()}) == 4
    assert plain["d"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64, torch.uint8])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_bytes_of_every_kind_of_tensor(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.zeros(shape, dtype=dtype)
    assert len(byte_view(tensor)) == tensor.numel() * tensor.element_size()
