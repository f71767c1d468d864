"""`billhook compress`: a smaller, faster, verified network, from a recipe or from options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from billhook.cli.compress_options import (
    Allocation,
    Allocator,
    Backend,
    Batch,
    Budget,
    Data,
    DataDir,
    Distill,
    DryRun,
    Epochs,
    Lr,
    Method,
    Name,
    Option,
    Pattern,
    PruneEpochs,
    Resume,
    RoundTo,
    Runs,
    SaveRecipe,
    Seed,
    SettleEpochs,
    SparseEpochs,
    SparseExclude,
    SparseInclude,
    SparseMethod,
    SparseOption,
    Sparsity,
    Target,
    Threads,
    Verify,
)
from billhook.cli.options import (
    CalibrationImages,
    CalibrationMethod,
    Debug,
    Exclude,
    Fuse,
    FuseOption,
    Include,
    Input,
    Json,
    Mixing,
    ModelArg,
    Precision,
    Quiet,
    Weights,
    bounds,
    changes,
    fusion,
    key_values,
    network,
    number_or_word,
)
from billhook.cli.options import precision as in_precision
from billhook.cli.run import carry_out_run
from billhook.cli.terminal import Terminal
from billhook.errors import InputError

if TYPE_CHECKING:
    from billhook.recipe import Change, Recipe


def compress(
    ctx: typer.Context,
    target: Target = None,
    inputs: Input = [],  # noqa: B006 (typer copies it)
    model_arg: ModelArg = [],  # noqa: B006
    weights: Weights = None,
    data: Data = None,
    data_dir: DataDir = None,
    batch: Batch = None,
    budget: Budget = [],  # noqa: B006
    fuse: Fuse = None,
    fuse_option: FuseOption = [],  # noqa: B006
    method: Method = None,
    option: Option = [],  # noqa: B006
    allocator: Allocator = None,
    include: Include = [],  # noqa: B006
    exclude: Exclude = [],  # noqa: B006
    round_to: RoundTo = None,
    mixing: Mixing = None,
    verify: Verify = None,
    prune_epochs: PruneEpochs = None,
    settle_epochs: SettleEpochs = None,
    sparsity: Sparsity = None,
    pattern: Pattern = None,
    sparse_method: SparseMethod = None,
    sparse_option: SparseOption = [],  # noqa: B006
    sparse_epochs: SparseEpochs = None,
    sparse_include: SparseInclude = [],  # noqa: B006
    sparse_exclude: SparseExclude = [],  # noqa: B006
    allocation: Allocation = None,
    epochs: Epochs = None,
    lr: Lr = None,
    distill: Distill = None,
    backend: Backend = None,
    precision: Precision = None,
    calibration: CalibrationMethod = None,
    calibration_images: CalibrationImages = None,
    threads: Threads = None,
    seed: Seed = None,
    name: Name = None,
    runs: Runs = Path("runs"),
    dry_run: DryRun = False,
    save_recipe: SaveRecipe = None,
    resume: Resume = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compress a network: prune to a budget, make weights zero, verify, fine-tune, export, measure."""
    from billhook.recipe import from_target, save

    terminal = Terminal(as_json, quiet)
    given = changes(
        {
            ("name",): ("--name", name),
            ("seed",): ("--seed", seed),
            **network(inputs, model_arg, weights, data),
            ("data", "dir"): ("--data-dir", data_dir),
            ("data", "batch"): ("--batch", batch),
            ("budget",): ("--budget", bounds(budget) or None),
            **fusion(fuse, fuse_option),
            ("prune", "method"): ("--method", method),
            **key_values(("prune", "options"), "--option", option),
            ("prune", "allocator"): ("--allocator", allocator),
            ("prune", "round_to"): ("--round-to", round_to),
            ("prune", "mixing"): ("--mixing", mixing),
            ("prune", "verify"): ("--verify", verify),
            ("prune", "training", "epochs"): ("--prune-epochs", prune_epochs),
            ("settle", "epochs"): ("--settle-epochs", settle_epochs),
            ("sparse", "sparsity"): ("--sparsity", sparsity),
            ("sparse", "pattern"): ("--pattern", pattern),
            ("sparse", "method"): ("--sparse-method", sparse_method),
            **key_values(("sparse", "options"), "--sparse-option", sparse_option),
            ("sparse", "training", "epochs"): ("--sparse-epochs", sparse_epochs),
            ("sparse", "allocation"): ("--allocation", allocation),
            ("sparse", "include"): ("--sparse-include", sparse_include),
            ("sparse", "exclude"): ("--sparse-exclude", sparse_exclude),
            ("finetune", "epochs"): ("--epochs", epochs),
            ("finetune", "lr"): ("--lr", number_or_word(lr)),
            ("finetune", "distill"): ("--distill", distill),
            ("export", "backend"): ("--backend", backend),
            **in_precision(precision, calibration, calibration_images),
            ("measure", "threads"): ("--threads", threads),
        }
    )
    if resume is not None:
        if target is not None or given or include or exclude or dry_run or save_recipe is not None:
            raise InputError(
                "--resume continues the run as it was begun: leave the other options and MODEL out"
            )
        _resume(ctx, terminal, resume)
        return
    if target is None:
        raise InputError("what shall be compressed? Give a network, a recipe file, or --resume RUN")
    recipe = _with_scope(from_target(target, given), target, given, include, exclude)
    if save_recipe is not None:
        save(recipe, save_recipe)
        terminal.say(f"recipe: {save_recipe}")
        if not dry_run:
            terminal.data({"recipe": str(save_recipe)})
            return
    if dry_run:
        _preview(terminal, recipe)
        return
    _begin(ctx, terminal, recipe, runs)


def _with_scope(
    recipe: Recipe, target: str, given: list[Change], include: list[str], exclude: list[str]
) -> Recipe:
    """Return the recipe with --include and --exclude: for channels, or for weights if there is no budget.

    A channel group and the weights that it runs through have different names, so one text is for one of both.
    """
    from billhook.recipe import from_target

    table = "prune" if recipe.prunes else "sparse"
    asked = changes({(table, "include"): ("--include", include), (table, "exclude"): ("--exclude", exclude)})
    for change in asked:
        if any(change.path == other.path for other in given):
            raise InputError(
                f"without a budget, {change.source} and --sparse-{change.path[1]} both say which weights are "
                "meant: give one of them"
            )
    return from_target(target, [*given, *asked]) if asked else recipe


def _preview(terminal: Terminal, recipe: Recipe) -> None:
    from billhook.pipeline import preview
    from billhook.report import cost_table, groups_table, weights_table

    decision = preview(recipe)
    groups = groups_table(decision.groups, kept=decision.plan.counts)
    fused = ", ".join(f"{fusion['operator']} at {fusion['at']}" for fusion in decision.plan.fusions)
    terminal.data(
        decision.to_dict(),
        *((f"fused: {fused}", "") if fused else ()),
        groups,
        "",
        *((weights_table(decision.weights), "") if decision.weights else ()),
        cost_table(decision.before, decision.after, encoded=bool(decision.weights)),
    )


def _begin(ctx: typer.Context, terminal: Terminal, recipe: Recipe, runs: Path) -> None:
    from billhook.pipeline import Subject, begin

    terminal.say("  looking at the network …")
    subject = Subject(recipe)
    directory = begin(subject, runs)
    terminal.say(f"run: {directory.path}")
    carry_out_run(ctx, terminal, directory, subject)


def _resume(ctx: typer.Context, terminal: Terminal, path: Path) -> None:
    from billhook.pipeline import RunDirectory

    carry_out_run(ctx, terminal, RunDirectory.open(path))
