"""Decide what to remove: a plan that meets the budget."""

from __future__ import annotations

from typing import Any

from billhook.pipeline.deciding import decide_plan, describe
from billhook.pipeline.work import PLAN, Work
from billhook.run_record import save_groups, save_layers


def run(work: Work) -> dict[str, Any]:
    """Return costs before and after; writes `plan.json`, `groups.json` and `layers.json`."""
    work.original  # noqa: B018 (trained weights must be in the network before it is scored)
    decision = decide_plan(work.subject)
    decision.plan.save(work.directory.file(PLAN))
    work.plan = decision.plan
    save_groups(work.directory.path, decision.group_rows())
    save_layers(work.directory.path, decision.layers)
    return {
        "before": decision.before.to_dict(),
        "after": decision.after.to_dict(),
        "made_by": dict(decision.plan.made_by),
        "summary": describe(decision),
    }
