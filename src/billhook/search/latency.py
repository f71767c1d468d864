"""The latency of candidates: which model says it, made here or taken from a study.

table       single layers timed in the engine, interpolated and added up, calibrated end to end
fitted      a formula of work, fitted to whole candidates timed end to end; any runtime
measured    every candidate timed end to end when it is asked for
auto        "table" where the runtime can time layers, "fitted" where it cannot
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from billhook.errors import StorageError, UnsupportedError
from billhook.measure.backend import backends
from billhook.search.latencies.calibrated import CalibratedLatency
from billhook.search.latencies.measured import MeasuredLatency
from billhook.search.latencies.model import CandidateLatency
from billhook.search.latencies.work import require_difference
from billhook.search.problem import SearchProblem

log = logging.getLogger("billhook")


def needs_latency(problem: SearchProblem) -> bool:
    """Tell if a search asks for latency: its budget bounds it, or it is weighed against accuracy."""
    bounds = {} if problem.budget is None else problem.budget.bounds
    return "latency" in bounds or problem.metric == "latency"


def make_latency(problem: SearchProblem) -> CandidateLatency:
    """Return the model that the problem's settings ask for, made on this machine; see the head of this file.

    Raises:
        InputError: if the runtime cannot time layers ("table"), or zeros make no difference to it while
            densities are searched.
        UnsupportedError: if the engine cannot run the network; names the operators.
        EngineError: if the engine is not built. ExportError, MeasureError: if a candidate cannot be timed.
    """
    wanted = problem.settings.latency
    require_difference(problem.space, problem.backend)
    if wanted == "measured":
        return MeasuredLatency(problem)
    if wanted == "fitted":
        if problem.space.layers:  # raises if the network would be left to a runtime that keeps zeros
            backends.get(problem.backend).layer_times(problem.model, problem.example_inputs)
        return CalibratedLatency.measure(problem, "fitted")
    if wanted == "table" or backends.get(problem.backend).leaves_zeros_out:
        try:
            return CalibratedLatency.measure(problem, "table")
        except UnsupportedError as e:
            if wanted == "table" or problem.space.layers:
                raise
            log.warning("no table of layers: %s; latency is fitted to whole networks", e)
    return CalibratedLatency.measure(problem, "fitted")


def known_latency(problem: SearchProblem, data: Any) -> CandidateLatency:
    """Return the model that a study has kept (see `CandidateLatency.to_dict`): the same times as before.

    Raises:
        StorageError: if it is damaged, or was made for other candidates or another runtime.
    """
    found = _read(problem, data)
    made_for, wanted = (found.record.backend, found.record.threads), (problem.backend, problem.threads)
    if made_for != wanted:
        raise StorageError(
            f"latency model: was made for the runtime {made_for[0]!r} on {made_for[1]} threads, this search "
            f"is for {wanted[0]!r} on {wanted[1]}"
        )
    return found


def _read(problem: SearchProblem, data: Any) -> CandidateLatency:
    form = data.get("format") if isinstance(data, Mapping) else None
    if form == "billhook.row_latency/1":
        return CalibratedLatency.from_dict(problem.space, data)
    if form == "billhook.row_times/1":
        return MeasuredLatency.from_dict(problem, data)
    raise StorageError(f"latency model: unknown format {form!r}")
