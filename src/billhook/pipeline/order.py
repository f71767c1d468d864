"""The stages of a run, in order."""

from __future__ import annotations

from billhook.pipeline.runner import Stage
from billhook.pipeline.stages import (
    baseline,
    decide,
    export,
    finetune,
    measure,
    prepare,
    prune,
    recalibrate,
    score,
    settle,
    sparsify,
    train,
)
from billhook.pipeline.work import Work


def _has_data(work: Work) -> bool:
    return work.recipe.data is not None


def _finetunes(work: Work) -> bool:
    return _has_data(work) and work.recipe.finetune.wanted


def _settles(work: Work) -> bool:
    return _has_data(work) and work.recipe.settle.wanted


STAGES: tuple[Stage[Work], ...] = (
    Stage("prepare", "network and data", prepare.run),
    Stage("train", "training of the original", train.run, lambda work: work.subject.trains),
    Stage("baseline", "accuracy of the original", baseline.run, _has_data),
    Stage("decide", "what to remove", decide.run),
    Stage("prune", "removal and verification", prune.run),
    Stage("settle", "training before zeros", settle.run, _settles),
    Stage("sparsify", "zeros in the weights", sparsify.run, lambda work: work.recipe.sparse.wanted),
    Stage(
        "recalibrate", "batch-norm statistics", recalibrate.run, lambda w: _has_data(w) and not _finetunes(w)
    ),
    Stage("finetune", "fine-tuning", finetune.run, _finetunes),
    Stage("export", "export", export.run),
    Stage("measure", "latency", measure.run),
    Stage("score", "accuracy on the test split", score.run, _has_data),
)
