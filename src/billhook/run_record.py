"""What a run hands to the report: the records behind `results.json`, `layers.json` and `groups.json`.

The pipeline writes them, the report reads them, and neither knows the other:

    Results(name="demo", model="resnet20", ...).save(run_directory)       # → results.json
    save_layers(run_directory, [LayerChange("conv1", "conv2d", 16, 12)])  # → layers.json
    save_groups(run_directory, [{**group.to_dict(), "kept": 12}, ...])    # → groups.json
    run = Run.load(run_directory)                                         # all of it, checked

Values are in base units (seconds, bytes, fractions, plain counts). `Results` may be saved again and again
while a run goes on: only the first four fields and `status` are required, everything else fills up as it
becomes known, so an interrupted or failed run has a report too. Field names are the names in the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from billhook.errors import StorageError
from billhook.json_record import decode, encode, read_json, read_text, write_json
from billhook.results import Check, Measurement

FORMAT = "billhook.results/1"
MAX_BYTES = 64 * 2**20  # group tables of networks with thousands of layers stay far below this
MAX_TEXT_BYTES = 2**20

RESULTS = "results.json"
LAYERS = "layers.json"
GROUPS = "groups.json"
RECIPE = "recipe.toml"
ENVIRONMENT = "environment.json"

_Quality = Literal["latency", "accuracy", "macs", "params"]
_Size = Literal["size", "size_gzip", "stored", "stored_gzip", "bytes", "encoded"]
_Process = Literal["peak_activation_bytes", "peak_rss", "throughput"]
Metric = Literal[_Quality, _Size, _Process]
METRICS: tuple[str, ...] = get_args(Metric)


@dataclass(frozen=True)
class Row:
    """One metric before and after.

    Attributes:
        metric: "size" is the exported file, "stored" the file of weights with their patterns, "…_gzip" either
            of them after gzip, "bytes" the weights in memory, "encoded" the few numbers that patterns leave
            of them (in older runs: "bytes"), "peak_rss" the measured process.
        before, after: Original and compressed network, same unit and conditions.
        better: Which direction is an improvement.
    """

    metric: Metric
    before: Measurement
    after: Measurement
    better: Literal["lower", "higher"]

    def __post_init__(self) -> None:
        if self.before.unit != self.after.unit:
            units = f"{self.before.unit!r} before, {self.after.unit!r} after"
            raise StorageError(f"{self.metric}: the units differ ({units}), so the values cannot be compared")


@dataclass(frozen=True)
class LatencyRatio:
    """Original ÷ compressed latency in one interleaved run: of the medians and of the minima."""

    median: float
    minimum: float


@dataclass(frozen=True)
class BudgetEntry:
    """One bound of the budget in base units, and what was reached."""

    metric: Literal["macs", "params", "size", "latency"]
    bound: float
    value: float
    met: bool


@dataclass(frozen=True)
class TrajectoryPoint:
    """A state of the network on its way: seconds, and a fraction; None if not taken."""

    label: str
    latency: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class Epoch:
    """One epoch of fine-tuning; a loss that is not finite is None."""

    epoch: int
    train_loss: float | None = None
    val_accuracy: float | None = None


@dataclass(frozen=True)
class Distance:
    """How far weights were from their patterns at a step of training, and how far these had moved."""

    step: int
    primal: float | None = None
    dual: float | None = None


@dataclass(frozen=True)
class LayerChange:
    """One layer before and after.

    Attributes:
        layer: Its name.
        kind: E.g. "conv2d" or "linear".
        before, after: Output channels.
        weights: How many weights the original has; 0 if that was not noted.
        kept: How many of them may differ from zero in the end.
        pattern: Which of those that channels have left may; "" if all.
    """

    layer: str
    kind: str
    before: int
    after: int
    weights: int = 0
    kept: int = 0
    pattern: str = ""


@dataclass(frozen=True)
class Sparsity:
    """What patterns have made of the weights that they are for.

    Attributes:
        tensors: How many weights have a pattern.
        weights: How many numbers they consisted of, once channels had left.
        kept: How many of these may differ from zero.
        numbers: How many are stored; fewer where weights share a magnitude.
        held: Whether fine-tuning has kept every pattern, bit by bit; None if there was none.
    """

    tensors: int
    weights: int
    kept: int
    numbers: int
    held: bool | None = None


@dataclass(frozen=True)
class MemberRecord:
    """One tensor axis of a group (see `ChannelGroup.to_dict`)."""

    tensor: str
    axis: int
    role: Literal["out", "in", "through"]
    width: int


@dataclass(frozen=True)
class GroupRecord:
    """A channel group as `ChannelGroup.to_dict` writes it, plus `kept`: how many of its units stay."""

    id: str
    size: int
    width: int
    prunable: bool
    frozen: str | None
    mixed: str | None
    members: tuple[MemberRecord, ...]
    kept: int


@dataclass(frozen=True)
class Results:
    """The outcome of one run.

    Attributes:
        name: Name of the run, for headings.
        model, data: What was compressed, and on which data; "" if none.
        created: Start of the run, ISO 8601 with time zone.
        status: "done", "interrupted" (can be resumed) or "failed" (the reason is the last of `notes`).
        budget: `Budget.to_dict()`.
        method: Registry name of the criterion or method, of the sparse method, or both: "l2 + admm".
        seeds: Every seed that was used.
        rows: Metrics before and after, in the order in which they are shown.
        latency_ratio: Speed-up from the interleaved run; None if latency was not measured.
        sparsity: How many weights are zero; None if no pattern was asked for.
        check: Outcome of `verify`; None if it was switched off or not reached.
        budget_met: Each bound and what was reached.
        trajectory: Accuracy and latency on the way: original, pruned, fine-tuned epoch 1, …
        history: Fine-tuning, one entry per epoch.
        distances: Of the weights to their patterns, if the sparse method has noted them.
        notes: Anything a reader must know, e.g. the fallback to the exported graph module.
    """

    name: str
    model: str
    data: str
    created: str
    status: Literal["done", "interrupted", "failed"]
    budget: Mapping[str, Any] = field(default_factory=dict)
    method: str = ""
    seeds: tuple[int, ...] = ()
    rows: tuple[Row, ...] = ()
    latency_ratio: LatencyRatio | None = None
    sparsity: Sparsity | None = None
    check: Check | None = None
    budget_met: tuple[BudgetEntry, ...] = ()
    trajectory: tuple[TrajectoryPoint, ...] = ()
    history: tuple[Epoch, ...] = ()
    distances: tuple[Distance, ...] = ()
    notes: tuple[str, ...] = ()

    def row(self, metric: str) -> Row | None:
        """Return the row of `metric`, None if the run does not have it."""
        return next((r for r in self.rows if r.metric == metric), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"format": FORMAT, **encode(self, "results")}

    @classmethod
    def from_dict(cls, data: Any, where: str = RESULTS) -> Results:
        """Return the results that `to_dict` wrote; raises `StorageError` with the entry."""
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        if found != FORMAT:
            raise StorageError(f"{where}: expected format {FORMAT!r}, found {found!r}")
        return decode(cls, {k: v for k, v in data.items() if k != "format"}, where)

    def save(self, directory: Path) -> None:
        """Write `results.json`; it appears whole or not at all. Raises `StorageError`."""
        data = self.to_dict()
        Results.from_dict(data)  # a file that could not be read back must not be written
        write_json(directory / RESULTS, data)


def save_layers(directory: Path, layers: Sequence[LayerChange]) -> None:
    """Write `layers.json`, in processing order. Raises `StorageError`."""
    write_json(directory / LAYERS, encode(layers, LAYERS))


def save_groups(directory: Path, groups: Sequence[Mapping[str, Any]]) -> None:
    """Write `groups.json`: `{**group.to_dict(), "kept": n}` per group. Raises `StorageError`."""
    data = encode(groups, GROUPS)
    _list_of(GroupRecord, data, GROUPS)
    write_json(directory / GROUPS, data)


@dataclass(frozen=True)
class Run:
    """Everything the report shows of a run directory; parts that the run did not reach are empty."""

    directory: Path
    results: Results
    layers: tuple[LayerChange, ...] = ()
    groups: tuple[GroupRecord, ...] = ()
    recipe: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, directory: str | Path) -> Run:
        """Read a run directory.

        Raises:
            StorageError: if there is no `results.json`, or a file is malformed; names file and entry.
        """
        path = Path(directory)
        if not (path / RESULTS).is_file():
            raise StorageError(
                f"{path}: no {RESULTS} here; is it a run directory, and did the run get so far?"
            )
        environment = _optional_json(path / ENVIRONMENT, {})
        return cls(
            directory=path,
            results=Results.from_dict(read_json(path / RESULTS, MAX_BYTES), str(path / RESULTS)),
            layers=_list_of(LayerChange, _optional_json(path / LAYERS, []), str(path / LAYERS)),
            groups=_list_of(GroupRecord, _optional_json(path / GROUPS, []), str(path / GROUPS)),
            recipe=read_text(path / RECIPE, MAX_TEXT_BYTES) if (path / RECIPE).is_file() else "",
            environment=_table(environment, str(path / ENVIRONMENT)),
        )


def _optional_json(path: Path, default: Any) -> Any:
    return read_json(path, MAX_BYTES) if path.is_file() else default


def _list_of(kind: Any, data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise StorageError(f"{where}: expected a list, found a {type(data).__name__}")
    return tuple(decode(kind, entry, f"{where}[{i}]") for i, entry in enumerate(data))


def _table(data: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise StorageError(f"{where}: expected a table of names, found a {type(data).__name__}")
    return data
