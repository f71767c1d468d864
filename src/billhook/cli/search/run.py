"""`billhook search MODEL`: a new search, or one that goes on because its study exists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from billhook.cli.compress_options import (
    Backend,
    Batch,
    Budget,
    Data,
    DataDir,
    RoundTo,
    SaveRecipe,
    Seed,
    Threads,
)
from billhook.cli.options import (
    Debug,
    Exclude,
    Fuse,
    FuseOption,
    Include,
    Input,
    Json,
    Mixing,
    ModelArg,
    Quiet,
    Weights,
    bounds,
    changes,
    fusion,
    key_values,
    network,
)
from billhook.cli.search.carry_out import carry_out
from billhook.cli.search.options import (
    Calibration,
    Channels,
    Criterion,
    DryRun,
    Images,
    Latency,
    LeastDensity,
    Lowest,
    Method,
    Metric,
    Parallel,
    Pattern,
    Ray,
    Repair,
    SearchOption,
    StudyName,
    StudyPlace,
    Target,
    Trials,
    Workers,
)
from billhook.cli.terminal import Terminal

if TYPE_CHECKING:
    from billhook.recipe import Recipe


def run(
    ctx: typer.Context,
    target: Target,
    inputs: Input = [],  # noqa: B006 (typer copies it)
    model_arg: ModelArg = [],  # noqa: B006
    weights: Weights = None,
    data: Data = None,
    data_dir: DataDir = None,
    batch: Batch = None,
    method: Method = None,
    search_option: SearchOption = [],  # noqa: B006
    budget: Budget = [],  # noqa: B006
    trials: Trials = None,
    study: StudyPlace = None,
    study_name: StudyName = None,
    workers: Workers = None,
    ray: Ray = None,
    parallel: Parallel = None,
    metric: Metric = None,
    latency: Latency = None,
    channels: Channels = None,
    lowest: Lowest = None,
    pattern: Pattern = None,
    least_density: LeastDensity = None,
    criterion: Criterion = None,
    repair: Repair = None,
    images: Images = None,
    calibration: Calibration = None,
    include: Include = [],  # noqa: B006
    exclude: Exclude = [],  # noqa: B006
    round_to: RoundTo = None,
    mixing: Mixing = None,
    fuse: Fuse = None,
    fuse_option: FuseOption = [],  # noqa: B006
    backend: Backend = None,
    threads: Threads = None,
    seed: Seed = None,
    dry_run: DryRun = False,
    save_recipe: SaveRecipe = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Search for the widths and densities of a trained network that meet a budget."""
    from billhook.recipe import from_target, save

    terminal = Terminal(as_json, quiet)
    given = changes(
        {
            ("seed",): ("--seed", seed),
            **network(inputs, model_arg, weights, data),
            ("data", "dir"): ("--data-dir", data_dir),
            ("data", "batch"): ("--batch", batch),
            ("budget",): ("--budget", bounds(budget) or None),
            **fusion(fuse, fuse_option),
            ("prune", "include"): ("--include", include),
            ("prune", "exclude"): ("--exclude", exclude),
            ("prune", "round_to"): ("--round-to", round_to),
            ("prune", "mixing"): ("--mixing", mixing),
            ("export", "backend"): ("--backend", backend),
            ("measure", "threads"): ("--threads", threads),
            ("search", "method"): ("--method", method),
            **key_values(("search", "options"), "--search-option", search_option),
            ("search", "trials"): ("--trials", trials),
            ("search", "study"): ("--study", study),
            ("search", "name"): ("--study-name", study_name),
            ("search", "workers"): ("--workers", workers),
            ("search", "ray"): ("--ray", ray),
            ("search", "parallel"): ("--parallel", parallel),
            ("search", "metric"): ("--metric", metric),
            ("search", "latency"): ("--latency", latency),
            ("search", "channels"): ("--channels", channels),
            ("search", "lowest"): ("--lowest", lowest),
            ("search", "pattern"): ("--pattern", pattern),
            ("search", "least_density"): ("--least-density", least_density),
            ("search", "criterion"): ("--criterion", criterion),
            ("search", "repair"): ("--repair", repair),
            ("search", "images"): ("--images", images),
            ("search", "calibration"): ("--calibration", calibration),
        }
    )
    recipe = from_target(target, given)
    if save_recipe is not None:
        save(recipe, save_recipe)
        terminal.say(f"recipe: {save_recipe}")
        if not dry_run:
            terminal.data({"recipe": str(save_recipe)})
            return
    if dry_run:
        _preview(terminal, recipe)
        return
    carry_out(ctx, terminal, recipe)


def _preview(terminal: Terminal, recipe: Recipe) -> None:
    from billhook.pipeline import Subject
    from billhook.pipeline.searching import preview_search
    from billhook.report.search_tables import preview_tables

    terminal.say("  looking at the network …")
    preview = preview_search(Subject(recipe))
    terminal.data(preview.to_dict(), *preview_tables(preview.to_dict()))
