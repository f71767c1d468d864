"""Synthetic runs for tests of the report: every number is made up, and none may be quoted as a result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console, RenderableType

from billhook.run_record import LatencyRatio, LayerChange, Results, Row, Run

DIRECTORY = Path(__file__).parent / "fabricated_run"
GOLDEN = Path(__file__).parent / "golden"

EVIL = '<script>alert("x")</script><img src=https://evil.example/x onerror=alert(1)>{{ 7 * 7 }}'


def one_run() -> Run:
    """Return the run in `fabricated_run/`."""
    return Run.load(DIRECTORY)


def several_runs() -> list[Run]:
    """Return runs that differ in speed, accuracy and status."""
    return [
        one_run(),
        variant("gentle", 1.66, 0.929, "fpgm"),
        replace_results(variant("random", 2.3, 0.9105, "random"), check=None),
        replace_results(variant("hard", 3.4, 0.903, "l1"), status="interrupted"),
    ]


def variant(name: str, speed_up: float, accuracy: float, method: str) -> Run:
    """Return the run with another latency and accuracy at its end."""
    run = one_run()
    start, *rest = run.results.trajectory
    assert start.latency is not None
    latency = start.latency / speed_up
    fall = 0.9268 - accuracy
    path = [replace(p, latency=latency, accuracy=(p.accuracy or 0.0) - fall) for p in rest]
    ends = {"latency": latency, "accuracy": accuracy}
    return replace_results(
        run,
        name=name,
        method=method,
        rows=tuple(with_after(r, ends[r.metric]) if r.metric in ends else r for r in run.results.rows),
        latency_ratio=LatencyRatio(speed_up, speed_up),
        trajectory=(start, *path),
    )


def with_after(row: Row, value: float) -> Row:
    """Return the row with another value after."""
    return replace(row, after=replace(row.after, value=value))


def replace_results(run: Run, **changes: object) -> Run:
    """Return the run with other entries in its results."""
    return replace(run, results=replace(run.results, **changes))


def hostile_run() -> Run:
    """Return a run in which every text tries to become markup."""
    run = one_run()
    results: Results = run.results
    measured = {"runtime": EVIL, EVIL: 1}
    return replace(
        run,
        results=replace(
            results,
            name=EVIL,
            model=EVIL,
            data=EVIL,
            method=EVIL,
            created=EVIL,
            budget={EVIL: EVIL},
            rows=tuple(replace(r, after=replace(r.after, conditions=measured)) for r in results.rows),
            check=replace(results.check, exact=False, agrees=False, first_difference=EVIL, mixed=(EVIL,)),
            trajectory=tuple(replace(p, label=f"{i} {EVIL}") for i, p in enumerate(results.trajectory)),
            notes=(EVIL,),
        ),
        layers=tuple(replace(x, layer=EVIL, kind=EVIL) for x in run.layers),
        groups=tuple(
            replace(g, id=EVIL, frozen=EVIL, members=tuple(replace(m, tensor=EVIL) for m in g.members))
            for g in run.groups
        ),
        recipe=EVIL,
        environment={EVIL: {EVIL: EVIL}},
    )


def deep_run(layers: int) -> Run:
    """Return a run with many layers."""
    changes = [LayerChange(f"block{i // 10}.conv{i % 10}", "conv2d", 64, 16 + i % 48) for i in range(layers)]
    return replace(one_run(), layers=tuple(changes))


def text_of(renderable: RenderableType, width: int = 100) -> str:
    """Return what a terminal of `width` columns shows, without colours and trailing blanks."""
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def golden(name: str) -> str:
    """Return the expected text in `golden/`."""
    return (GOLDEN / name).read_text(encoding="utf-8")
