from __future__ import annotations

import torch
from torch import Tensor, nn

import billhook as bh
from billhook.graph import capture, make_plan
from billhook.pipeline import Subject
from billhook.pipeline.deciding import decide_plan, layer_changes
from billhook.recipe import Recipe


class Network(nn.Module):
    """A convolution, a transposed one, a depthwise one, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.up = nn.ConvTranspose2d(8, 12, 2, 2)
        self.depthwise = nn.Conv2d(12, 12, 3, groups=12)
        self.norm = nn.BatchNorm2d(12)
        self.out = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.conv(x).relu())
        return self.out(self.norm(self.depthwise(x)).relu().mean((2, 3)))


def test_layers_are_listed_as_apply_will_make_them() -> None:
    model, image = Network().eval(), torch.randn(1, 3, 8, 8)
    graph = capture(model, image)
    keep = {g.id: torch.arange(g.size).numpy() % 4 != 0 for g in graph.groups.prunable}
    plan = make_plan(graph, keep)
    small = bh.apply(model, plan)

    changes = {c.layer: c for c in layer_changes(model, graph, plan)}

    assert list(changes) == ["conv", "up", "depthwise", "out"]
    assert {n: c.kind for n, c in changes.items()} == {
        "conv": "conv2d",
        "up": "convtranspose2d",
        "depthwise": "conv2d",
        "out": "linear",
    }
    for name, change in changes.items():
        before, after = model.get_submodule(name), small.get_submodule(name)
        size = "out_features" if name == "out" else "out_channels"
        assert change.before == getattr(before, size)
        assert change.after == getattr(after, size)
    assert changes["up"].after == 9
    assert changes["out"].after == 5


def test_a_method_that_checks_accuracy_does_so_on_the_validation_split() -> None:
    subject = Subject(
        Recipe.model_validate(
            {
                "model": {"name": "resnet-8", "args": {"width": 8}},
                "data": {"name": "digits", "batch": 64, "limit": 7},
                "budget": {"macs": 0.5},
                "prune": {
                    "method": "fupruner",
                    "options": {"max_drop": 100.0},
                    "training": {"steps": 1, "precision": "32-true"},
                },
            }
        )
    )
    accuracy = decide_plan(subject, None).plan.made_by["accuracy"]
    assert all(float(value * 7).is_integer() for value in accuracy.values())
