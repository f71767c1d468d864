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


def _fused(**tables: object) -> Subject:
    entries = {
        "model": {"name": "resnet-8", "input": ["1x3x8x8"]},
        "budget": {"macs": 0.4},
        "fuse": {"level": "aggressive"},
        **tables,
    }
    return Subject(Recipe.model_validate(entries))


def test_a_fused_network_is_decided_on_block_by_block() -> None:
    subject = _fused(prune={"round_to": 1, "allocator": "efficient"})
    decision = decide_plan(subject, None)
    assert [f["at"] for f in decision.plan.fusions] == ["stages.0.0", "stages.1.0", "stages.2.0"]
    assert decision.before == bh.cost(subject.model, subject.example_inputs)
    small = bh.apply(subject.model, decision.plan)
    assert decision.after.macs == bh.cost(small, subject.example_inputs).macs <= 0.4 * decision.before.macs
    copies = [c for c in decision.layers if c.kind == "channelcopy"]
    assert [c.layer for c in copies] == [f"stages.{i}.0.copies" for i in range(3)]
    for change in copies:
        left = dict(small.named_buffers()).get(f"{change.layer}.index", [])
        assert (change.before, change.after) == (
            subject.fused.network.get_buffer(f"{change.layer}.index").numel(),
            len(left),
        )  # type: ignore[union-attr]


def test_a_bound_on_macs_is_one_on_those_of_the_original_also_where_fusion_adds_some() -> None:
    subject = _fused(fuse={"level": "aggressive", "copies": "dense"}, prune={"round_to": 1})
    decision = decide_plan(subject, None)
    original = bh.cost(subject.model, subject.example_inputs)
    assert subject.prunable_graph.costs.cost(None).macs > original.macs == decision.before.macs
    assert 0.3 * original.macs < decision.after.macs <= 0.4 * original.macs
