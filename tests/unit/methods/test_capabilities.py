from __future__ import annotations

import pytest
import torch
from torch import Tensor

from billhook.criteria import Criterion, ScoreContext, criteria
from billhook.graph import ChannelGroup
from billhook.graph.patterns import patterns
from billhook.methods import Capability, capabilities, names, prune
from billhook.methods._capabilities import pattern_capabilities, sparse_capabilities
from billhook.methods.sparse import sparse_methods
from billhook.registry import Info
from tests.arch.source import ROOT
from tests.networks import build


def _rows() -> dict[str, Capability]:
    return {row.name: row for row in capabilities()}


def test_every_method_and_criterion_has_a_row() -> None:
    rows = _rows()
    assert sorted(rows) == names()
    assert rows["one_shot"].kind == "method"
    assert rows["taylor"].kind == "criterion"
    assert rows["taylor"].needs_data
    assert not rows["l2"].needs_data
    assert rows["fpgm"].tests == "tests/unit/criteria/test_fpgm.py"
    assert "default 30" in rows["taylor"].options["batches"]


def test_every_sparse_method_and_pattern_has_a_row_and_tests() -> None:
    rows = {row.name: row for row in sparse_capabilities()}
    assert sorted(rows) == sparse_methods.names()
    assert rows["admm"].trains
    assert rows["admm"].needs_data
    assert "default 12" in rows["admm"].options["rounds"]
    forms = {row.name: row for row in pattern_capabilities()}
    assert sorted(forms) == patterns.names()
    assert forms["block_punched"].kind == "pattern"
    for row in (*rows.values(), *forms.values()):
        assert (ROOT / row.tests).is_file(), row.tests


class Last(Criterion):
    """A criterion from outside."""

    def score(self, group: ChannelGroup, context: ScoreContext) -> Tensor:
        return torch.arange(group.size, dtype=torch.float32)


def test_a_criterion_from_outside_is_listed_and_usable() -> None:
    criteria.add("last", Last, Info("later units matter more"))
    try:
        assert "last" in _rows()
        model, inputs = build("plain")
        from billhook.allocate.budget import Budget

        plan = prune(model, inputs, method="last", budget=Budget(macs=0.5))
        assert all(keep[-1] for keep in plan.keep.values())
    finally:
        criteria.remove("last")


def test_names_are_known_without_importing_torch() -> None:
    import subprocess
    import sys

    code = "import sys; from billhook.methods import names; names(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("package", ["billhook.criteria", "billhook.methods"])
def test_an_unknown_attribute_is_an_attribute_error(package: str) -> None:
    import importlib

    with pytest.raises(AttributeError, match="nothing"):
        _ = importlib.import_module(package).nothing
