"""`billhook inspect`: what can leave a network, what cannot and why, and what it costs."""

from __future__ import annotations

from typing import Annotated

import typer

from billhook.cli.options import (
    Debug,
    Fuse,
    FuseOption,
    Input,
    Json,
    Mixing,
    ModelArg,
    Quiet,
    Weights,
    changes,
    fusion,
    network,
)
from billhook.cli.terminal import Terminal

_Target = Annotated[
    str,
    typer.Argument(
        metavar="MODEL|RECIPE.toml",
        help="A name from `billhook methods`, package.module:callable, path/file.py:callable, or a recipe.",
        show_default=False,
    ),
]
_Data = Annotated[
    str | None, typer.Option("--data", metavar="NAME", help="Data set that says the shape of the input.")
]


def inspect(
    target: _Target,
    inputs: Input = [],  # noqa: B006 (typer copies it)
    model_arg: ModelArg = [],  # noqa: B006
    weights: Weights = None,
    data: _Data = None,
    mixing: Mixing = None,
    fuse: Fuse = None,
    fuse_option: FuseOption = [],  # noqa: B006
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show the channel groups of a network, which are frozen and why, and what a forward pass costs."""
    from billhook.pipeline import Subject
    from billhook.recipe import from_target
    from billhook.report import cost_table, groups_table

    terminal = Terminal(as_json, quiet)
    given = changes(
        {
            **network(inputs, model_arg, weights, data),
            ("prune", "mixing"): ("--mixing", mixing),
            **fusion(fuse, fuse_option),
        }
    )
    subject = Subject(from_target(target, given))
    graph, fused = subject.prunable_graph, subject.fused
    cost = graph.costs.cost(None)
    prunable = sum(g.size for g in graph.groups.prunable)
    terminal.data(
        {
            "model": target,
            "fingerprint": graph.fingerprint,
            "cost": cost.to_dict(),
            "groups": [g.to_dict() for g in graph.groups],
            **({} if fused is None else fused.to_dict()),
        },
        *(() if fused is None else (str(fused), "")),
        groups_table(graph.groups),
        "",
        f"{len(graph.groups.prunable)} of {len(graph.groups)} groups can shrink ({prunable} units)",
        "",
        cost_table(cost),
    )
