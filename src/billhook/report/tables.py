"""Tables that the commands print: groups, costs, methods, latencies. Pure functions from records to rich."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from billhook.report.values import (
    TITLES,
    format_factor,
    format_relative_spread,
    format_value,
    printable,
)
from billhook.results import Cost, Measurement

if TYPE_CHECKING:  # billhook.graph imports torch, and a table needs only the records handed in
    from billhook.graph.groups import ChannelGroup, Member

MAX_MEMBERS = 3  # tensors a row of the groups table names; the rest is a number


def plain_table(*columns: str) -> Table:
    """Return an empty table in the house style; a column that starts with ">" is set to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    return table


def groups_table(groups: Iterable[ChannelGroup], kept: Mapping[str, int] | None = None) -> Table:
    """Return one row per channel group, for `inspect`.

    Args:
        groups: The groups, in the order of the table.
        kept: Units that stay per group id (`plan.counts`), which adds a column; the others stay whole.
    """
    middle = (">Kept",) if kept is not None else ()
    table = plain_table("Group", ">Units", *middle, ">Width", "Members", "Frozen or inexact because")
    for group in groups:
        count = (str(kept.get(group.id, group.size)),) if kept is not None else ()
        table.add_row(
            Text(printable(group.id)),
            str(group.size),
            *count,
            str(group.width),
            Text(_members(group.members)),
            _state(group),
        )
    return table


def cost_table(original: Cost, compressed: Cost | None = None, *, encoded: bool = False) -> Table:
    """Return what one forward pass costs; with `compressed`, also what it costs then and the ratio.

    Args:
        original: Of the original network.
        compressed: Of the smaller one.
        encoded: Bytes are those of the numbers that patterns leave, not those that a runtime needs.
    """
    units = {"macs": "", "params": "", "bytes": "B", "peak_activation_bytes": "B"}
    if compressed is None:
        table = plain_table("Cost", ">Value")
    else:
        table = plain_table("Cost", ">Original", ">Compressed", ">Ratio")
    after = compressed.to_dict() if compressed is not None else {}
    for metric, before in original.to_dict().items():
        title = TITLES["encoded" if encoded and metric == "bytes" else metric]
        cells = [title, format_value(before, units[metric])]
        if compressed is not None:
            cells += [format_value(after[metric], units[metric]), _ratio(before, after[metric])]
        table.add_row(*cells)
    return table


def weights_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Return one row per weight that has a pattern, for a dry run.

    Args:
        rows: With "tensor", "shape", "pattern", "weights", "kept" and "sparsity".
    """
    table = plain_table("Weight", "Shape", "Pattern", ">Weights", ">Kept", ">Zero")
    for row in rows:
        table.add_row(
            Text(printable(str(row["tensor"]))),
            "×".join(map(str, row["shape"])),
            Text(printable(str(row["pattern"]))),
            f"{row['weights']:,}",
            f"{row['kept']:,}",
            f"{100 * row['sparsity']:.1f} %",
        )
    return table


def methods_table(rows: Sequence[Mapping[str, object]]) -> Table:
    """Return the capability table; the keys of the rows are the columns, in order of appearance.

    True is shown as "yes" and False as nothing, so that what an entry can do stands out.
    """
    keys = list(dict.fromkeys(key for row in rows for key in row))
    table = plain_table(*(key.replace("_", " ").capitalize() for key in keys))
    for row in rows:
        table.add_row(*(Text(_cell(row.get(key))) for key in keys))
    return table


def latency_table(measurements: Mapping[str, Measurement], baseline: str | None = None) -> Table:
    """Return one row per artefact: median, range, repetitions and, with a baseline, how many times faster.

    Args:
        measurements: Latencies by artefact, taken in one interleaved run.
        baseline: Key of the measurement the others are compared with; by median and by minimum.
    """
    extra = (">Speed-up", ">By minimum") if baseline is not None else ()
    table = plain_table("Artefact", ">Median", ">Minimum", ">Maximum", ">Spread", ">Repetitions", *extra)
    reference = measurements[baseline] if baseline is not None else None
    for name, m in measurements.items():
        ends = ("–" if v is None else format_value(v, m.unit) for v in (m.minimum, m.maximum))
        cells = [format_value(m.value, m.unit), *ends, format_relative_spread(m), f"{m.repetitions:,}"]
        if reference is not None:
            cells += [_ratio(reference.value, m.value), _ratio(reference.minimum, m.minimum)]
        table.add_row(Text(printable(name)), *cells)
    return table


def _members(members: Sequence[Member]) -> str:
    """Return e.g. "conv1.weight, bn1.weight, bn1.bias +4": what produces the channels comes first."""
    order = {"out": 0, "through": 1, "in": 2}
    names = list(dict.fromkeys(m.tensor for m in sorted(members, key=lambda m: order[m.role])))
    more = len(names) - MAX_MEMBERS
    return printable(", ".join(names[:MAX_MEMBERS])) + (f" +{more}" if more > 0 else "")


def _state(group: ChannelGroup) -> Text:
    if group.frozen is not None:
        return Text(printable(str(group.frozen)), "cyan")
    if group.mixed is not None:
        return Text(f"inexact: {printable(str(group.mixed))}", "yellow")
    return Text()


def _ratio(before: float | None, after: float | None) -> str:
    return "–" if not before or not after else format_factor(before / after)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else printable(str(value))
