"""`billhook search export`: from any trial to a finished run, with one command."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from billhook.cli.compress_options import (
    Backend,
    Batch,
    Distill,
    Epochs,
    Lr,
    Name,
    Runs,
    SaveRecipe,
    SettleEpochs,
    SparseEpochs,
    SparseMethod,
    SparseOption,
    Threads,
)
from billhook.cli.options import (
    CalibrationImages,
    CalibrationMethod,
    Debug,
    Json,
    Precision,
    Quiet,
    changes,
    key_values,
    number_or_word,
)
from billhook.cli.options import precision as in_precision
from billhook.cli.run import carry_out_run
from billhook.cli.search.options import PlanOnly, Start, Study, StudyName, TrialNumber
from billhook.cli.terminal import Terminal
from billhook.errors import InputError

if TYPE_CHECKING:
    from billhook.report.search_record import SearchRecord
    from billhook.search.studies.trial import Trial


def export(
    ctx: typer.Context,
    study: Study,
    trial: TrialNumber = None,
    study_name: StudyName = None,
    plan_only: PlanOnly = None,
    start: Start = "judged",
    epochs: Epochs = None,
    lr: Lr = None,
    distill: Distill = None,
    settle_epochs: SettleEpochs = None,
    sparse_method: SparseMethod = None,
    sparse_option: SparseOption = [],  # noqa: B006 (typer copies it)
    sparse_epochs: SparseEpochs = None,
    batch: Batch = None,
    backend: Backend = None,
    precision: Precision = None,
    calibration: CalibrationMethod = None,
    calibration_images: CalibrationImages = None,
    threads: Threads = None,
    name: Name = None,
    runs: Runs = Path("runs"),
    save_recipe: SaveRecipe = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a network of a trial: plan, fine-tuning, export, measurement, report; in a new run directory."""
    from billhook.graph.storage import write_tensors
    from billhook.pipeline import Subject, begin
    from billhook.pipeline.exporting_trial import JUDGED, network_of_trial, plan_of, recipe_of_trial
    from billhook.pipeline.searching import recipe_of
    from billhook.recipe import save
    from billhook.report.search_record import SearchRecord
    from billhook.search.studies.place import Place
    from billhook.search.studies.study import Study as Trials

    terminal = Terminal(as_json, quiet)
    given = changes(
        {
            ("name",): ("--name", name),
            ("data", "batch"): ("--batch", batch),
            ("settle", "epochs"): ("--settle-epochs", settle_epochs),
            ("sparse", "method"): ("--sparse-method", sparse_method),
            **key_values(("sparse", "options"), "--sparse-option", sparse_option),
            ("sparse", "training", "epochs"): ("--sparse-epochs", sparse_epochs),
            ("finetune", "epochs"): ("--epochs", epochs),
            ("finetune", "lr"): ("--lr", number_or_word(lr)),
            ("finetune", "distill"): ("--distill", distill),
            ("export", "backend"): ("--backend", backend),
            **in_precision(precision, calibration, calibration_images),
            ("measure", "threads"): ("--threads", threads),
        }
    )
    with closing(Trials.open(study, study_name or "search")) as kept, tempfile.TemporaryDirectory() as folder:
        chosen = _chosen(SearchRecord.of(kept, str(Place.of(study))), trial)
        terminal.say("  looking at the network …")
        searched = Subject(recipe_of(kept))
        plan = plan_of(kept, chosen, searched)
        if plan_only is not None:
            plan.save(plan_only)
            terminal.data({"trial": chosen.to_dict(), "plan": str(plan_only)}, f"plan: {plan_only}")
            return
        file = save_recipe.with_suffix(".plan.json") if save_recipe else Path(folder) / "plan.json"
        plan.save(file)
        own, tensors = network_of_trial(kept, chosen, searched) if start == JUDGED else None, None
        if own is not None:
            tensors = str(file.with_suffix(".safetensors").absolute())
            write_tensors(Path(tensors), own)
        recipe = recipe_of_trial(
            kept, chosen, str(file.absolute()), start=start, tensors_file=tensors, changes=given
        )
        if save_recipe is not None:
            save(recipe, save_recipe)
            terminal.say(f"recipe: {save_recipe}, plan: {file}")
            terminal.data({"recipe": str(save_recipe), "plan": str(file)})
            return
        subject = Subject(recipe)
        directory = begin(subject, runs)
    terminal.say(f"trial {chosen.number}, run: {directory.path}")
    carry_out_run(ctx, terminal, directory, subject)


def _chosen(record: SearchRecord, number: int | None) -> Trial:
    if number is not None:
        return record.trial(number)
    if record.best is not None:
        return record.best
    if not record.trials:
        raise InputError(f"{record.place}: no trial is finished yet")
    if record.limits:
        raise InputError(f"{record.place}: no trial keeps the budget yet; go on with it, or give --trial N")
    raise InputError(
        f"{record.place}: the search has no budget, so no trial is the best: choose one of its front with "
        f"--trial N (billhook search show {record.place})"
    )
