"""`billhook measure`: latency of exported networks, taken in turns in the runtime that would be shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from billhook.cli.options import Debug, Json, Quiet
from billhook.cli.terminal import Terminal
from billhook.errors import InputError

_Artifacts = Annotated[
    list[Path],
    typer.Argument(
        metavar="ARTIFACT...",
        help="Folders that compress or export wrote, e.g. runs/demo/artifacts/compressed.",
        show_default=False,
    ),
]
_Against = Annotated[
    Path | None,
    typer.Option("--against", metavar="ORIGINAL", help="The artifact the others are compared with."),
]
_Rounds = Annotated[int, typer.Option("--rounds", metavar="N", help="Turns of each artifact.")]
_Seconds = Annotated[float, typer.Option("--seconds", metavar="S", help="Length of a turn.")]
_Threads = Annotated[int, typer.Option("--threads", metavar="N", help="Threads of the runtime.")]
_Batch = Annotated[
    int | None, typer.Option("--batch", metavar="N", help="Batch size.", show_default="as exported")
]


def measure(
    artifacts: _Artifacts,
    against: _Against = None,
    rounds: _Rounds = 9,
    seconds: _Seconds = 0.5,
    threads: _Threads = 1,
    batch: _Batch = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Time exported networks in turns, each in a process of its own."""
    from billhook.measure import Artifact, Timing, profile
    from billhook.report import latency_table

    terminal = Terminal(as_json, quiet)
    timing = Timing(rounds=rounds, seconds_per_round=seconds, threads=threads, batch=batch)
    paths = [*([] if against is None else [against]), *artifacts]
    names = _names(paths)
    loaded = [Artifact.load(path) for path in paths]
    turns = (len(loaded) + 1) * rounds * seconds
    terminal.say(f"timing {len(loaded)} artifacts in turns, about {turns:.0f} s …")
    baseline = None if against is None else loaded[0]
    profiles = profile(loaded[0 if against is None else 1 :], timing, against=baseline)
    found = dict(zip(names, profiles, strict=True))
    terminal.data(
        {
            name: {
                "latency": p.latency.to_dict(),
                "throughput": p.throughput.to_dict(),
                "peak_rss": p.memory.to_dict(),
            }
            for name, p in found.items()
        },
        latency_table({n: p.latency for n, p in found.items()}, names[0] if against is not None else None),
    )


def _names(paths: list[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart.

    Raises:
        InputError: if an artifact is given twice.
    """
    full = [path.resolve() for path in paths]
    if len(set(full)) != len(full):
        raise InputError("an artifact is given twice; name each once")
    for length in range(1, max(len(p.parts) for p in full) + 1):
        names = ["/".join(p.parts[-length:]) for p in full]
        if len(set(names)) == len(names):
            return names
    return [str(p) for p in full]
