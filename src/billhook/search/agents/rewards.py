"""Rewards: what an evaluated candidate is worth to an agent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from billhook.errors import InputError
from billhook.search.studies.trial import Trial


def error(trial: Trial) -> float:
    """Return minus the error: for a search within a budget that the wall guarantees."""
    return trial.accuracy - 1


def accuracy(trial: Trial) -> float:
    """Return the accuracy: the same up to a constant, as the authors' code has it."""
    return trial.accuracy


def error_log_macs(trial: Trial) -> float:
    """Return -error · log(MACs): accuracy comes first, and fewer MACs are better."""
    return (trial.accuracy - 1) * math.log(trial.costs["macs"])


def error_log_params(trial: Trial) -> float:
    """Return -error · log(parameters)."""
    return (trial.accuracy - 1) * math.log(trial.costs["params"])


REWARDS: Mapping[str, Callable[[Trial], float]] = {
    "error": error,
    "accuracy": accuracy,
    "error-log-macs": error_log_macs,
    "error-log-params": error_log_params,
}
CONSTRAINED = ("error", "accuracy")  # say nothing about costs, so that a budget has to


def reward_of(name: str, trial: Trial) -> float:
    """Return the reward called `name` of a trial.

    References:
        He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices", ECCV 2018, section
        3.4: R_err, R_FLOPs and R_Param.
    Raises:
        InputError: if it is no number; names the trial.
    """
    found = REWARDS[name](trial)
    if not math.isfinite(found):
        raise InputError(
            f"the reward {name!r} of trial {trial.number} is {found} (accuracy {trial.accuracy}): an agent "
            "cannot learn from that. Look at the weights and at the validation data"
        )
    return found
