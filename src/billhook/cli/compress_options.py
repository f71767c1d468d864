"""The options of `billhook compress` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Target = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL|RECIPE.toml",
        help="A network (see `billhook inspect --help`) or a recipe file, which other options override.",
        show_default=False,
    ),
]
Data = Annotated[str | None, typer.Option("--data", metavar="NAME", help="Data set, e.g. fashion-mnist.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", metavar="DIR", help="Where its files are.")]
Batch = Annotated[int | None, typer.Option("--batch", metavar="N", help="Batch size of training.")]
Budget = Annotated[
    list[str],
    typer.Option(
        "--budget",
        metavar="METRIC=BOUND",
        help="Upper bound, e.g. latency=0.5, latency=8ms, macs=50%, size=2MB. Repeat for several.",
    ),
]
Method = Annotated[str | None, typer.Option("--method", metavar="NAME", help="See `billhook methods`.")]
Option = Annotated[
    list[str], typer.Option("--option", metavar="KEY=VALUE", help="Option of the method. Repeat for several.")
]
Allocator = Annotated[
    str | None, typer.Option("--allocator", metavar="NAME", help="How width is shared out between layers.")
]
Sparsity = Annotated[
    float | None,
    typer.Option(
        "--sparsity", metavar="X", help="Fraction of zeros in weights that have a pattern, e.g. 0.8."
    ),
]
Pattern = Annotated[
    str | None,
    typer.Option(
        "--pattern",
        metavar="PATTERN",
        help="Which weights leave together: unstructured, 4x1, kernel_pattern, …; of A|B|dense, each layer "
        "gets the first that fits; rules and search choose for each layer.",
        show_default="4x1|dense",
    ),
]
SparseMethod = Annotated[
    str | None,
    typer.Option(
        "--sparse-method",
        metavar="NAME",
        help="What decides which weights leave; see `billhook methods`.",
        show_default="magnitude",
    ),
]
SparseOption = Annotated[
    list[str],
    typer.Option(
        "--sparse-option", metavar="KEY=VALUE", help="Option of the sparse method. Repeat for several."
    ),
]
SparseEpochs = Annotated[
    int | None,
    typer.Option(
        "--sparse-epochs",
        metavar="N",
        help="Epochs of a sparse method that trains.",
        show_default="2",
    ),
]
SparseInclude = Annotated[
    list[str],
    typer.Option(
        "--sparse-include",
        metavar="PATTERN",
        help="Only make weights of layers or tensors of this name zero (* and ? match). Repeat for several.",
    ),
]
SparseExclude = Annotated[
    list[str],
    typer.Option(
        "--sparse-exclude",
        metavar="PATTERN",
        help="Leave weights of layers or tensors of this name dense. Repeat for several.",
    ),
]
Allocation = Annotated[
    str | None,
    typer.Option(
        "--allocation",
        metavar="NAME",
        help="How zeros are shared out between layers: lamp, global, uniform, erk.",
        show_default="the method's own",
    ),
]
RoundTo = Annotated[
    int | None,
    typer.Option(
        "--round-to", metavar="N", help="Keep multiples of N channels; by default what the runtime likes."
    ),
]
Verify = Annotated[
    bool | None,
    typer.Option(
        "--verify/--no-verify",
        help="Prove that removing channels equals silencing them.",
        show_default="--verify",
    ),
]
PruneEpochs = Annotated[
    int | None,
    typer.Option(
        "--prune-epochs",
        metavar="N",
        help="Epochs of a method that decides while it trains.",
        show_default="1",
    ),
]
SettleEpochs = Annotated[
    int | None,
    typer.Option(
        "--settle-epochs",
        metavar="N",
        help="Epochs of training without the channels, before weights become zero.",
        show_default="0",
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option("--epochs", metavar="N", help="Epochs of fine-tuning; 0 for none.", show_default="2"),
]
Lr = Annotated[
    str | None,
    typer.Option(
        "--lr", metavar="X|auto", help="Learning rate of fine-tuning; auto: by the damage that pruning did."
    ),
]
Distill = Annotated[
    float | None,
    typer.Option("--distill", metavar="X", help="Weight of the original's answers in fine-tuning, 0 to 1."),
]
Backend = Annotated[
    str | None, typer.Option("--backend", metavar="NAME", help="Runtime to export for and to measure.")
]
Threads = Annotated[
    int | None, typer.Option("--threads", metavar="N", help="Threads of the runtime.", show_default="1")
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Seed of everything random.")]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the run directory.")]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where run directories are made.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be removed; write and train nothing.")
]
SaveRecipe = Annotated[
    Path | None,
    typer.Option("--save-recipe", metavar="FILE", help="Write the recipe that the options make, and stop."),
]
Resume = Annotated[
    Path | None, typer.Option("--resume", metavar="RUN", help="Continue an interrupted or failed run.")
]
