"""Decide what to remove: a plan that meets the budget."""

from __future__ import annotations

from typing import Any

from billhook.pipeline.deciding import decide_plan, describe
from billhook.pipeline.work import PLAN, Work
from billhook.run_record import save_groups, save_layers


def run(work: Work) -> dict[str, Any]:
    """Return costs before and after; writes `plan.json`, `groups.json` and `layers.json`.

    A method that changes weights has them kept in `decided.safetensors`; the original stays as it is.
    """
    work.original  # noqa: B018 (trained weights must be in the network before it is scored)
    checkpoints = work.directory.file("checkpoints/decide")
    decision = decide_plan(work.subject, checkpoints, bars=work.bars)
    changed = decision.outcome.model is not work.subject.prunable
    if changed:
        work.keep_decided(decision.outcome.model)
    decision.plan.save(work.directory.file(PLAN))
    work.plan = decision.plan
    save_groups(work.directory.path, decision.group_rows())
    save_layers(work.directory.path, decision.layers)
    return {
        "before": decision.before.to_dict(),
        "after": decision.after.to_dict(),
        "weights": "changed" if changed else "kept",
        "history": [record.to_dict() for record in decision.outcome.history],
        "made_by": dict(decision.plan.made_by),
        "notes": _notes(work),
        "summary": describe(decision),
    }


def _notes(work: Work) -> list[str]:
    """Return what was fused, and what was not and why."""
    fused = work.subject.fused
    if fused is None:
        return []
    sites: dict[str, list[str]] = {}
    for _, site in fused.held:
        sites.setdefault(site.operator, []).append(site.at)
    reasons: dict[tuple[str, str], list[str]] = {}
    for _, refusal in fused.refused:
        reasons.setdefault((refusal.operator, refusal.why), []).append(refusal.at)
    return [
        *(f"fused: {operator} at {', '.join(places)}" for operator, places in sites.items()),
        *(f"not fused: {operator} at {', '.join(p)}: {why}" for (operator, why), p in reasons.items()),
        *([] if sites else ["fused: nothing, because nothing was found that could be"]),
    ]
