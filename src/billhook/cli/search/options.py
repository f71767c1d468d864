"""The options of the commands below `billhook search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Target = Annotated[
    str,
    typer.Argument(
        metavar="MODEL|RECIPE.toml",
        help="A trained network (see `billhook inspect --help`) or a recipe, which other options override.",
        show_default=False,
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="amc, agmc, metapruning, jcw, random, nsga2, tpe; see `billhook methods`.",
        show_default="amc",
    ),
]
Trials = Annotated[
    int | None,
    typer.Option("--trials", metavar="N", help="How many candidates are evaluated.", show_default="200"),
]
StudyPlace = Annotated[
    str | None,
    typer.Option(
        "--study",
        metavar="FILE|URL",
        help="Where trials are kept: a file, or postgresql://USER@HOST/NAME for several machines. If it "
        "exists, the search goes on.",
        show_default="search.db",
    ),
]
Study = Annotated[
    str,
    typer.Argument(metavar="STUDY", help="File or URL that `--study` named.", show_default=False),
]
Studies = Annotated[
    list[str],
    typer.Argument(metavar="STUDY...", help="Files or URLs of studies.", show_default=False),
]
StudyName = Annotated[
    str | None,
    typer.Option("--study-name", metavar="NAME", help="Name of the study there.", show_default="search"),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", help="Processes that evaluate.", show_default="1"),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Evaluate on a Ray cluster instead: auto, local, or HOST:PORT.",
    ),
]
Parallel = Annotated[
    int | None,
    typer.Option(
        "--parallel",
        metavar="N",
        help="How many candidates are asked for at once; fixed when a search begins.",
        show_default="as many as workers",
    ),
]
SearchOption = Annotated[
    list[str],
    typer.Option("--search-option", metavar="KEY=VALUE", help="Option of the searcher. Repeat for several."),
]
Repair = Annotated[
    str | None,
    typer.Option(
        "--repair",
        metavar="none|reconstruct|recalibrate|both",
        help="What is done to a candidate before it is judged: least squares, batch-norm statistics, both.",
        show_default="both",
    ),
]
Images = Annotated[
    int | None,
    typer.Option(
        "--images", metavar="N", help="Validation images that judge a candidate.", show_default="2000"
    ),
]
Calibration = Annotated[
    int | None,
    typer.Option(
        "--calibration", metavar="N", help="Training images that repair looks at.", show_default="512"
    ),
]
Lowest = Annotated[
    float | None,
    typer.Option("--lowest", metavar="X", help="Least fraction of a group's channels.", show_default="0.125"),
]
Channels = Annotated[
    bool | None,
    typer.Option(
        "--channels/--no-channels", help="Search widths, or densities alone.", show_default="--channels"
    ),
]
Pattern = Annotated[
    str | None,
    typer.Option(
        "--pattern",
        metavar="PATTERN",
        help="Search densities as well: which weights leave together, e.g. '4x1|dense'.",
    ),
]
LeastDensity = Annotated[
    float | None,
    typer.Option(
        "--least-density", metavar="X", help="Least fraction of a tensor's weights.", show_default="0.1"
    ),
]
Criterion = Annotated[
    str | None,
    typer.Option(
        "--criterion",
        metavar="NAME",
        help="Which channels stay: a criterion of `billhook methods`, or first.",
        show_default="l1",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="macs|params|size|latency",
        help="The cost that is weighed against accuracy.",
        show_default="the first of the budget, or macs",
    ),
]
Latency = Annotated[
    str | None,
    typer.Option(
        "--latency",
        metavar="auto|table|fitted|measured",
        help="Where latencies of candidates come from.",
        show_default="auto",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Show what would be chosen from, and the budgets within reach."),
]
More = Annotated[
    int | None,
    typer.Option(
        "--trials",
        metavar="N",
        help="So many trials more than are finished.",
        show_default="up to the number the search was begun with",
    ),
]
Top = Annotated[int, typer.Option("--top", metavar="N", help="How many of the best trials are listed.")]
TrialNumber = Annotated[
    int | None,
    typer.Option(
        "--trial", metavar="N", help="The trial.", show_default="the most accurate within the budget"
    ),
]
Start = Annotated[
    str,
    typer.Option(
        "--start",
        metavar="judged|kept|reconstructed|fresh",
        help="Weights that training starts with: those that the candidate was judged with, the network's as "
        "they are, refitted by least squares, or drawn anew.",
    ),
]
PlanOnly = Annotated[
    Path | None,
    typer.Option("--plan-only", metavar="FILE", help="Write the plan of the trial, and stop."),
]
ReportFile = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FILE", help="HTML file to write."),
]
