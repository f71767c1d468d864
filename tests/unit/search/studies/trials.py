"""What tests of studies have in common: facts of a small search, and its trials."""

from __future__ import annotations

from typing import Any

from billhook.search.studies.study import Claim, Study
from billhook.search.studies.trial import Trial

GENES = [
    {"name": "channels conv1", "values": [4.0, 8.0, 12.0, 16.0]},
    {"name": "density fc.weight", "values": [0.5, 1.0]},
]


def facts(**changes: Any) -> dict[str, Any]:
    """Return the facts of a search."""
    usual = {
        "method": "random",
        "options": {},
        "objectives": ["accuracy"],
        "metric": "macs",
        "seed": 0,
        "space": "0123456789abcdef",
        "genes": GENES,
        "key": "inherited none 2000",
        "budget": {"macs": 0.5},
        "parallel": 2,
    }
    return {**usual, **changes}


def genes_of(number: int) -> tuple[int, int]:
    """Return the genes that candidate `number` has."""
    return number % 4, number // 4 % 2


def trial_of(number: int, **changes: Any) -> Trial:
    """Return the trial of candidate `number`."""
    usual = {
        "accuracy": 0.5 + number / 1000,
        "loss": 2.0 - number / 7,  # needs all digits
        "costs": {"macs": 1e6 + number, "params": 1e3},
        "seconds": 0.25,
        "key": "inherited none 2000",
        "notes": {"generation": number // 10, "parents": [1, 2]},
    }
    return Trial(number, genes_of(number), **{**usual, **changes})


def carry_out(study: Study, number: int, **changes: Any) -> Trial:
    """Claim and finish a candidate."""
    claim = study.claim(number, genes_of(number))
    assert isinstance(claim, Claim)
    return study.finish(claim, trial_of(number, **changes))
