"""`Recipe`: what a user can ask for, as checked values. Only this folder uses pydantic."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from billhook.allocate import allocators
from billhook.allocate.budget import METRICS, Budget
from billhook.compile.int8.ranges import METHODS
from billhook.fuse.options import OPERATORS, Fusion
from billhook.graph.patterns import options_in, parse_pattern
from billhook.measure.backend import backends
from billhook.methods import names as method_names
from billhook.methods.sparse import MAPPINGS, is_mapping, sparse_methods
from billhook.options import configure, rules
from billhook.recipe.input_spec import InputSpec, parse_inputs
from billhook.recipe.searching import Search
from billhook.recipe.table import Plain, Table, Texts, as_value_error, one_of
from billhook.recipe.training import DecidingTraining, Finetune, Settle, SparseTraining, Training
from billhook.registry import Registry
from billhook.sparse.allocation import ALLOCATIONS

GIVEN = "given"  # the method that takes its plan from a file
DENSE = "dense"  # the pattern of a layer that stays as it is

# Data sets are a leaf that recipes may not import; their registry is found by name, as runtimes are.
_DATASETS: Registry[object] = Registry("data set", "billhook.data", dashes=True)


def _input(text: str) -> str:
    as_value_error(lambda: InputSpec.parse(text))
    return text


class Model(Table):
    """What to compress: a zoo name, `package.module:callable` or `path/file.py:callable`."""

    name: str = Field(min_length=1)
    args: dict[str, Plain] = Field(default={})
    weights: str | None = None
    input: Annotated[tuple[Annotated[str, AfterValidator(_input)], ...], Field(strict=False)] = ()

    @field_validator("input")
    @classmethod
    def _together(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        as_value_error(lambda: parse_inputs(texts))
        return texts


class Data(Table):
    """A data set by name; see `billhook.data.load`. `batch` is for training, `limit` for validation."""

    name: Annotated[str, one_of("data set", _DATASETS.names)]
    dir: str | None = None
    fetch: bool = True
    image_size: int = Field(default=224, ge=1)
    workers: int = Field(default=0, ge=0)
    batch: int = Field(default=128, ge=1)
    limit: int | None = Field(default=None, ge=1)


class Bounds(Table):
    """Upper bounds; see `Budget`. A number up to 1 or "50%" is relative to the original."""

    macs: float | str | None = None
    params: float | str | None = None
    size: float | str | None = None
    latency: float | str | None = None

    @field_validator(*METRICS, mode="before")
    @classmethod
    def _readable(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None:
            as_value_error(lambda: Budget.from_dict({str(info.field_name): value}))
        return value

    @model_validator(mode="after")
    def _not_empty(self) -> Bounds:
        as_value_error(self.to_budget)
        return self

    def to_budget(self) -> Budget:
        """Return the bounds as a `Budget`."""
        return Budget(macs=self.macs, params=self.params, size=self.size, latency=self.latency)


class Fuse(Table):
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


class Prune(Table):
    """Which channels leave.

    `round_to` is the multiple that widths are rounded to; without it, what the backend likes best.
    `options` go to the method; `calibration` is how many images a method may look at; `training` is how a
    method trains that decides while it does so.
    """

    method: Annotated[str, one_of("method", method_names)] = "l2"
    allocator: Annotated[str, one_of("allocator", allocators.names)] | None = None
    include: Texts = ("*",)
    exclude: Texts = ()
    round_to: int | None = Field(default=None, ge=1)
    mixing: Literal["freeze", "allow"] = "freeze"
    verify: bool = True
    calibration: int = Field(default=256, ge=1)
    options: dict[str, Plain] = Field(default={})
    training: DecidingTraining = DecidingTraining()


def _patterns(wanted: str | dict[str, str]) -> str | dict[str, str]:
    """Check "A|B|dense", of which a layer gets the first pattern that fits it, one by layer, or a mapping."""
    if is_mapping(wanted):
        assert isinstance(wanted, str)
        as_value_error(partial(_mapping, wanted))
        return wanted
    for text in [wanted] if isinstance(wanted, str) else wanted.values():
        for alternative in text.split("|"):
            if alternative.strip() != DENSE:
                as_value_error(partial(parse_pattern, alternative))
    return wanted


def _mapping(text: str) -> None:
    name, options = options_in(text)
    configure(MAPPINGS[name], options, what=f"pattern {name!r}")


class Sparse(Table):
    """Which weights become zero or equal, in the channels that are left; none if nothing is said.

    `sparsity` is the fraction of zeros in the weights that have a pattern, `pattern` which of them leave
    together: one text, of whose alternatives ("kernel_pattern|4x1|dense") each layer gets the first that
    fits, one text by layer, or "rules" or "search", which map a pattern to each layer. `sparsities` says the
    fraction for every weight by name, in the place of `sparsity` and `allocation`. `options` go to the
    method; `training` is how a method trains that decides while it does so.
    """

    method: Annotated[str, one_of("sparse method", sparse_methods.names)] = "magnitude"
    sparsity: float | None = Field(default=None, ge=0, lt=1)
    sparsities: dict[str, Annotated[float, Field(ge=0, lt=1)]] | None = Field(default=None, min_length=1)
    pattern: Annotated[str | dict[str, str], AfterValidator(_patterns)] = "4x1|dense"
    allocation: Annotated[str, one_of("allocation", lambda: ALLOCATIONS)] | None = None
    include: Texts = ("*",)
    exclude: Texts = ()
    options: dict[str, Plain] = Field(default={})
    training: SparseTraining = SparseTraining()

    @property
    def wanted(self) -> bool:
        """False if no weight shall leave on its own; patterns such as "2:4" say themselves how many do."""
        said = self.sparsity is not None or self.sparsities is not None
        return said or self.pattern != type(self).model_fields["pattern"].default

    @model_validator(mode="after")
    def _one_way(self) -> Sparse:
        if self.sparsities is not None and (self.sparsity is not None or self.allocation is not None):
            raise ValueError("sparsities say it all: leave sparsity and allocation out")
        return self


class Export(Table):
    """Which runtime the networks are exported for, and what it computes in.

    With `precision` "int8", the compressed network computes in 8 bits; the original stays as it was. The
    ranges of values are found on `calibration_images` training images, by the rule `calibration`.
    """

    backend: Annotated[str, one_of("backend", backends.names)] = "onnxruntime"
    precision: Literal["float32", "int8"] = "float32"
    calibration: Annotated[str, one_of("calibration method", lambda: METHODS)] = "mse"
    calibration_images: int = Field(default=512, ge=1)


class Measure(Table):
    """How latency is taken; `batch` is by default that of the example inputs."""

    batch: int | None = Field(default=None, ge=1)
    threads: int = Field(default=1, ge=1)
    rounds: int = Field(default=9, ge=1)
    seconds_per_round: float = Field(default=0.5, gt=0)


class Recipe(Table):
    """Everything a run needs to know.

    `budget` says how much leaves as whole channels, `sparse` how much of the rest as single weights; either
    may be left out. `train` trains the original first, unless trained weights for it come with billhook;
    without it, the original is taken as it is. `settle` trains the network without its channels before
    weights leave, `finetune` what is left of it; both are for runs with data. `search` is for
    `billhook search` alone, whose budget, scope and data are those of the other tables.
    """

    name: str = Field(default="", pattern=r"^[\w.-]*$")
    seed: int = Field(default=0, ge=0)
    model: Model
    data: Data | None = None
    budget: Bounds | None = None
    fuse: Fuse = Fuse()
    prune: Prune = Prune()
    settle: Settle = Settle()
    sparse: Sparse = Sparse()
    train: Training | None = None
    finetune: Finetune = Finetune()
    export: Export = Export()
    measure: Measure = Measure()
    search: Search | None = None

    @property
    def prunes(self) -> bool:
        """False if no channel shall leave: there is neither a budget nor a plan that says which do."""
        return self.budget is not None or self.prune.method == GIVEN
