"""`Recipe`: what a user can ask for, as checked values. The only place where pydantic is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from billhook.allocate import allocators
from billhook.allocate.budget import METRICS, Budget
from billhook.errors import BillhookError, NameNotFoundError
from billhook.fuse.options import OPERATORS, Fusion
from billhook.measure.backend import backends
from billhook.methods import names as method_names
from billhook.options import rules
from billhook.recipe.input_spec import InputSpec, parse_inputs
from billhook.registry import Registry
from billhook.train.config import FitConfig

Plain = bool | int | float | str | list[bool | int | float | str] | dict[str, bool | int | float | str]
Texts = Annotated[tuple[str, ...], Field(strict=False)]


def _one_of(kind: str, names: Callable[[], Iterable[str]]) -> AfterValidator:
    """Return a check that a name is known; names are listed without importing what they stand for."""

    def check(name: str) -> str:
        known = list(names())
        if name not in known:
            raise ValueError(str(NameNotFoundError(kind, name, known)))
        return name

    return AfterValidator(check)


# Data sets are a leaf that recipes may not import; their registry is found by name, as runtimes are.
_DATASETS: Registry[object] = Registry("data set", "billhook.data", dashes=True)


def _input(text: str) -> str:
    _as_value_error(lambda: InputSpec.parse(text))
    return text


def _as_value_error(check: Callable[[], object]) -> None:
    """Run `check`; pydantic collects `ValueError`s only, so ours become one."""
    try:
        check()
    except BillhookError as e:
        raise ValueError(str(e)) from None


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Model(_Table):
    """What to compress: a zoo name, `package.module:callable` or `path/file.py:callable`."""

    name: str = Field(min_length=1)
    args: dict[str, Plain] = {}
    weights: str | None = None
    input: Annotated[tuple[Annotated[str, AfterValidator(_input)], ...], Field(strict=False)] = ()

    @field_validator("input")
    @classmethod
    def _together(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        _as_value_error(lambda: parse_inputs(texts))
        return texts


class Data(_Table):
    """A data set by name; see `billhook.data.load`. `batch` is for training, `limit` for validation."""

    name: Annotated[str, _one_of("data set", _DATASETS.names)]
    dir: str | None = None
    fetch: bool = True
    image_size: int = Field(default=224, ge=1)
    workers: int = Field(default=0, ge=0)
    batch: int = Field(default=128, ge=1)
    limit: int | None = Field(default=None, ge=1)


class Bounds(_Table):
    """Upper bounds; see `Budget`. A number up to 1 or "50%" is relative to the original."""

    macs: float | str | None = None
    params: float | str | None = None
    size: float | str | None = None
    latency: float | str | None = None

    @field_validator(*METRICS, mode="before")
    @classmethod
    def _readable(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None:
            _as_value_error(lambda: Budget.from_dict({str(info.field_name): value}))
        return value

    @model_validator(mode="after")
    def _not_empty(self) -> Bounds:
        _as_value_error(self.to_budget)
        return self

    def to_budget(self) -> Budget:
        """Return the bounds as a `Budget`."""
        return Budget(macs=self.macs, params=self.params, size=self.size, latency=self.latency)


class Training(_Table):
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
        _as_value_error(lambda: self.to_config(seed=0))
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


class Fuse(_Table):
    """Which equivalent rewrites widen what can be pruned; see `billhook.fuse.Fusion` for each entry."""

    level: str = "none"
    operators: Texts = OPERATORS
    include: Texts = ("*",)
    exclude: Texts = ()
    add_form: str = "chain"
    copies: str = "symbolic"
    keep_if: str = "cost"

    @field_validator("*")
    @classmethod
    def _within_rule(cls, value: Any, info: ValidationInfo) -> Any:
        rule = rules(Fusion)[str(info.field_name)]
        if not rule.accepts(value):
            raise ValueError(f"must be {rule}, found {value!r}")
        return value

    def to_fusion(self) -> Fusion:
        """Return the entries as a `Fusion`."""
        return Fusion(**self.model_dump())


class Prune(_Table):
    """Which channels leave.

    `round_to` is the multiple that widths are rounded to; without it, what the backend likes best.
    `options` go to the method; `calibration` is how many images a method may look at; `training` is how a
    method trains that decides while it does so.
    """

    method: Annotated[str, _one_of("method", method_names)] = "l2"
    allocator: Annotated[str, _one_of("allocator", allocators.names)] | None = None
    include: Texts = ("*",)
    exclude: Texts = ()
    round_to: int | None = Field(default=None, ge=1)
    mixing: Literal["freeze", "allow"] = "freeze"
    verify: bool = True
    calibration: int = Field(default=256, ge=1)
    options: dict[str, Plain] = {}
    training: DecidingTraining = DecidingTraining()


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


class Export(_Table):
    """Which runtime the networks are exported for."""

    backend: Annotated[str, _one_of("backend", backends.names)] = "onnxruntime"


class Measure(_Table):
    """How latency is taken; `batch` is by default that of the example inputs."""

    batch: int | None = Field(default=None, ge=1)
    threads: int = Field(default=1, ge=1)
    rounds: int = Field(default=9, ge=1)
    seconds_per_round: float = Field(default=0.5, gt=0)


class Recipe(_Table):
    """Everything a run needs to know.

    `train` trains the original first, unless trained weights for it come with billhook; without it, the
    original is taken as it is. `finetune` is for runs with data.
    """

    name: str = Field(default="", pattern=r"^[\w.-]*$")
    seed: int = Field(default=0, ge=0)
    model: Model
    data: Data | None = None
    budget: Bounds | None = None
    fuse: Fuse = Fuse()
    prune: Prune = Prune()
    train: Training | None = None
    finetune: Finetune = Finetune()
    export: Export = Export()
    measure: Measure = Measure()
