"""The steps of a run, in order. Each is one file: a function of the `Work` that returns plain data."""

from __future__ import annotations

from billhook.pipeline.runner import Stage
from billhook.pipeline.stages.baseline import baseline
from billhook.pipeline.stages.decide import decide
from billhook.pipeline.stages.export import export
from billhook.pipeline.stages.finetune import finetune
from billhook.pipeline.stages.measure import measure
from billhook.pipeline.stages.prepare import prepare
from billhook.pipeline.stages.prune import prune
from billhook.pipeline.stages.recalibrate import recalibrate
from billhook.pipeline.stages.score import score
from billhook.pipeline.stages.train import train
from billhook.pipeline.work import Work


def _has_data(work: Work) -> bool:
    return work.recipe.data is not None


def _finetunes(work: Work) -> bool:
    return _has_data(work) and work.recipe.finetune.wanted


STAGES: tuple[Stage[Work], ...] = (
    Stage("prepare", "network and data", prepare),
    Stage("train", "training of the original", train, lambda work: work.subject.trains),
    Stage("baseline", "accuracy of the original", baseline, _has_data),
    Stage("decide", "what to remove", decide),
    Stage("prune", "removal and verification", prune),
    Stage("recalibrate", "batch-norm statistics", recalibrate, lambda w: _has_data(w) and not _finetunes(w)),
    Stage("finetune", "fine-tuning", finetune, _finetunes),
    Stage("export", "export", export),
    Stage("measure", "latency", measure),
    Stage("score", "accuracy on the test split", score, _has_data),
)
