"""How a recipe says that a network is trained, in each of the places where one is."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from billhook.options import rules
from billhook.recipe.table import Table, as_value_error
from billhook.train.config import FitConfig


class Training(Table):
    """How to train; see `billhook.train.FitConfig` for what each entry means.

    The seed is the recipe's, the batch size the data's.
    """

    epochs: int = 2
    steps: int | None = None
    optimizer: str = "sgd"
    lr: float = 0.2
    schedule: str = "one-cycle"
    warmup: float | None = None
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    ema: float = 0.0
    clip: float | None = None
    precision: str = "auto"
    accelerator: str = "auto"
    devices: int = 1
    strategy: str = "auto"
    channels_last: bool = True
    log_every: int = 50
    checkpoint_steps: int | None = None
    checkpoint_seconds: float | None = 60.0

    @field_validator("*")
    @classmethod
    def _within_rule(cls, value: Any, info: ValidationInfo) -> Any:
        rule = rules(FitConfig)[str(info.field_name)]
        if not rule.accepts(value) and (info.field_name, value) not in (("epochs", 0), ("lr", "auto")):
            raise ValueError(f"must be {rule}, found {value!r}")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Training:
        as_value_error(lambda: self.to_config(seed=0))
        return self

    def to_config(self, seed: int, *, lr: float | None = None) -> FitConfig:
        """Return the entries as a `FitConfig`; 0 epochs stand for no training at all, see `wanted`.

        Args:
            seed: Of the recipe.
            lr: Another learning rate than the table's.
        """
        entries = {**self.model_dump(), "epochs": max(self.epochs, 1)}
        return FitConfig(**{**entries, **({} if lr is None else {"lr": lr})}, seed=seed)

    @property
    def wanted(self) -> bool:
        """False if there is nothing to train."""
        return self.epochs > 0 or self.steps is not None


class DecidingTraining(Training):
    """Training in which a method decides what leaves a network that is trained already."""

    epochs: int = Field(default=1, ge=1)
    lr: float = 0.05
    schedule: str = "cosine"


class SparseTraining(DecidingTraining):
    """Training in which a sparse method decides which weights leave."""

    epochs: int = Field(default=2, ge=1)


class Finetune(Training):
    """Training of the smaller network, which learns from the original's answers as well.

    With lr = "auto" the rate follows from how far pruning has damaged dynamical isometry; see
    `billhook.train.isometric_lr`.
    """

    lr: float | Literal["auto"] = 0.02  # type: ignore[assignment]
    distill: float = 0.5
    temperature: float = 4.0

    @field_validator("lr", mode="before")
    @classmethod
    def _number_or_auto(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "auto":
            raise ValueError(f"must be a number above 0 or 'auto', found {value!r}")
        return value

    def to_config(self, seed: int, *, lr: float | None = None) -> FitConfig:
        """Return the entries as a `FitConfig`; `lr` stands in for "auto"."""
        if lr is None and self.lr == "auto":
            lr = float(type(self).model_fields["lr"].default)
        return super().to_config(seed, lr=lr)

    @model_validator(mode="after")
    def _auto_is_for_sgd(self) -> Finetune:
        if self.lr == "auto" and self.optimizer != "sgd":
            raise ValueError(f"lr = 'auto' is for optimizer = 'sgd'; give a number for {self.optimizer!r}")
        return self


class Settle(Finetune):
    """Training of the network without its channels, before its weights become zero; none by default.

    A sparse method starts from a network that has made up for its channels, as JCW trains its winners.
    """

    epochs: int = 0
