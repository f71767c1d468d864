from __future__ import annotations

import pytest
import torch

from billhook.errors import InputError
from billhook.train.precision import resolve_precision


@pytest.mark.parametrize(
    ("abilities", "expected"),
    [
        ({"avx512_bf16": True}, "bf16-mixed"),
        ({"avx512_bf16": False, "avx2": True}, "32-true"),
        ({}, "32-true"),
    ],
)
def test_auto_means_bf16_where_the_cpu_computes_in_it(
    abilities: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities, raising=False)
    assert resolve_precision("auto", "cpu") == expected


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_asks_the_gpu_if_there_is_one(
    supported: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert resolve_precision("auto", "auto") == expected
    assert resolve_precision("16-mixed", "cuda") == "16-mixed"


def test_what_is_named_is_kept() -> None:
    assert resolve_precision("bf16-mixed", "cpu") == "bf16-mixed"
    assert resolve_precision("32-true", "cpu") == "32-true"


def test_what_cannot_be_had_is_explained() -> None:
    with pytest.raises(InputError, match="'16-mixed' needs a GPU"):
        resolve_precision("16-mixed", "cpu")
    with pytest.raises(InputError, match="must be one of"):
        resolve_precision("bf16", "cpu")
