"""What rules are written with: calls with named arguments, and the table of rules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from billhook.errors import InputError
from billhook.graph.capture import capture_program
from billhook.graph.inputs import as_call
from billhook.graph.rules import RULES, Call
from billhook.graph.rules._base import as_int, bind, rule, shape_of


def calls(model: nn.Module, *inputs: torch.Tensor, dynamic: bool = False) -> dict[str, Call]:
    program = capture_program(model, as_call(inputs), dynamic_batch=dynamic)
    found = [bind(n) for n in program.graph.nodes if n.op == "call_function"]
    return {c.name: c for c in found}


def test_arguments_have_the_names_of_the_schema_and_its_defaults() -> None:
    conv = calls(nn.Conv2d(3, 4, 3, stride=2), torch.zeros(1, 3, 8, 8))["conv2d"]
    assert set(conv.args) == {"input", "weight", "bias", "stride", "padding", "dilation", "groups"}
    assert (list(conv["stride"]), conv["groups"]) == ([2, 2], 1)
    assert conv.get("nothing", "groups") == 1
    assert conv.get("nothing") is None
    assert conv.shape == (1, 4, 3, 3)
    assert [shape_of(o) for o in conv.operands] == [(1, 3, 8, 8), (4, 3, 3, 3), (4,)]


def test_an_operator_in_place_has_the_name_of_the_other() -> None:
    assert "relu" in calls(nn.ReLU(inplace=True), torch.zeros(2))


def test_symbolic_sizes_are_read_by_their_example() -> None:
    flat = calls(nn.Flatten(), torch.zeros(1, 3, 4), dynamic=True)["flatten"]
    batch = flat.node.meta["val"].shape[0]
    assert isinstance(batch, torch.SymInt)
    assert as_int(batch) == 2
    assert flat.shape == (2, 12)


def test_an_operator_has_one_rule() -> None:
    with pytest.raises(InputError, match="operator 'conv2d' already has a rule"):
        rule("conv2d")(RULES["conv2d"])


def test_rules_are_known_by_base_names() -> None:
    assert {
        "conv2d",
        "linear",
        "batch_norm",
        "cat",
        "view",
        "mean",
        "scaled_dot_product_attention",
        "pixel_shuffle",
    } <= set(RULES)
