from __future__ import annotations

from typing import Any

import pytest

from billhook.errors import InputError
from billhook.train import FitConfig

WRONG = [
    ("epochs", 0, "at least 1"),
    ("epochs", 1.5, "an integer"),
    ("steps", 0, "at least 1, or None"),
    ("optimizer", "lion", "'sgd', 'adamw'"),
    ("lr", 0.0, "above 0"),
    ("lr", "0.1", "above 0"),
    ("lr", float("nan"), "above 0"),
    ("schedule", "triangular", "'one-cycle', 'cosine', 'linear', 'constant', 'step'"),
    ("warmup", 1.5, "at most 1, or None"),
    ("momentum", 1.0, "at most 0.9999"),
    ("nesterov", 1, "True or False"),
    ("weight_decay", -1e-4, "at least 0"),
    ("label_smoothing", 2, "at most 1"),
    ("ema", 1.0, "at most 0.99999"),
    ("distill", -0.1, "at least 0"),
    ("temperature", 0, "above 0"),
    ("clip", 0, "above 0, or None"),
    ("precision", "fp8", "'auto', '32-true', 'bf16-mixed', '16-mixed'"),
    ("accelerator", "tpu", "'auto', 'cpu', 'cuda', 'mps'"),
    ("devices", 0, "at least 1"),
    ("strategy", "fsdp", "'auto', 'ddp', 'ddp-fork'"),
    ("channels_last", "yes", "True or False"),
    ("seed", -1, "at least 0"),
    ("log_every", 0, "at least 1"),
    ("checkpoint_steps", 0, "at least 1, or None"),
    ("checkpoint_seconds", -1.0, "above 0, or None"),
]


@pytest.mark.parametrize(("name", "value", "valid"), WRONG, ids=lambda v: str(v))
def test_a_wrong_value_names_itself_and_the_valid_range(name: str, value: Any, valid: str) -> None:
    with pytest.raises(InputError, match="FitConfig") as caught:
        FitConfig(**{name: value})
    assert f"{name}={value!r}" in str(caught.value)
    assert valid in str(caught.value)


def test_nesterov_without_momentum_is_explained() -> None:
    with pytest.raises(InputError, match="nesterov=True needs momentum"):
        FitConfig(momentum=0.0)
    assert FitConfig(momentum=0.0, nesterov=False).momentum == 0


@pytest.mark.parametrize(
    ("schedule", "fraction"),
    [("one-cycle", 0.3), ("cosine", 0.05), ("linear", 0.0), ("constant", 0.0), ("step", 0.0)],
)
def test_the_warmup_follows_the_schedule_unless_given(schedule: str, fraction: float) -> None:
    assert FitConfig(schedule=schedule).warmup_fraction == fraction
    assert FitConfig(schedule=schedule, warmup=0.2).warmup_fraction == 0.2


def test_only_what_changes_the_result_belongs_to_the_identity() -> None:
    assert FitConfig(log_every=1, checkpoint_steps=3).identity() == FitConfig().identity()
    assert FitConfig(lr=0.1).identity() != FitConfig().identity()
