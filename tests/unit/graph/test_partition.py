"""Groups: who leaves together, in which units, under which names."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import torch
from torch import Tensor, nn

from billhook.graph import ChannelGroup, Graph, capture
from tests.arch.source import ROOT
from tests.networks import NETWORKS, build


def table(group: ChannelGroup) -> dict[tuple[str, int], tuple[str, list[list[int]]]]:
    return {(m.tensor, m.axis): (m.role, m.index.tolist()) for m in group.members}


def singles(*indices: int) -> list[list[int]]:
    return [[i] for i in indices]


def test_a_convolution_with_its_norm_and_its_reader() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    group = capture(model, torch.zeros(1, 3, 8, 8)).groups["0"]
    each = singles(0, 1, 2, 3)
    assert (group.id, group.size, group.width, group.prunable) == ("0", 4, 1, True)
    assert table(group) == {
        ("0.weight", 0): ("out", each), ("0.bias", 0): ("out", each), ("1.weight", 0): ("through", each),
        ("1.bias", 0): ("through", each), ("1.running_mean", 0): ("through", each),
        ("1.running_var", 0): ("through", each), ("3.weight", 1): ("in", each),
    }  # fmt: skip
    assert group.members[0].tensor == "0.weight"


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = nn.Linear(3, 6), nn.Linear(6, 8), nn.Linear(8, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.outer(self.inner(x).relu()))


def test_a_residual_ties_everything_that_adds_up() -> None:
    groups = capture(Residual(), torch.zeros(1, 3)).groups
    assert [(g.id, g.size, g.prunable) for g in groups] == [
        ("stem", 6, True),
        ("inner", 8, True),
        ("head", 2, False),
    ]
    roles = {(t, a): role for (t, a), (role, _) in table(groups["stem"]).items()}
    assert roles == {
        ("stem.weight", 0): "out", ("stem.bias", 0): "out", ("inner.weight", 1): "in",
        ("outer.weight", 0): "out", ("outer.bias", 0): "out", ("head.weight", 1): "in",
    }  # fmt: skip


class Parts(nn.Module):
    """The parts of one layer go different ways."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = nn.Linear(3, 12)
        self.a, self.b, self.c = nn.Linear(4, 2), nn.Linear(6, 2), nn.Linear(2, 6)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.whole(x).relu().split([4, 6, 2], -1)
        return self.a(a) + self.b(b + self.c(c))


def test_the_parts_of_a_layer_are_named_by_their_range() -> None:
    groups = capture(Parts(), torch.zeros(1, 3)).groups
    assert [(g.id, g.size) for g in groups] == [
        ("whole[0:4]", 4),
        ("whole[4:10]", 6),
        ("whole[10:12]", 2),
        ("a", 2),
    ]
    assert table(groups["whole[4:10]"])["b.weight", 1] == ("in", singles(*range(6)))


class Alternating(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.whole, self.even, self.odd = nn.Linear(3, 8), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.whole(x).relu()
        return self.even(x[:, ::2]) + self.odd(x[:, 1::2])


def test_parts_that_are_no_range_are_told_apart() -> None:
    names = [g.id for g in capture(Alternating(), torch.zeros(1, 3)).groups]
    assert names == ["whole[0...6]", "whole[1...7]", "even"]


def test_flattening_gives_a_unit_several_indices() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Flatten(), nn.Linear(12, 2))
    group = capture(model, torch.zeros(1, 1, 2, 2)).groups["0"]
    assert table(group)["2.weight", 1] == ("in", [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]])
    assert group.width == 1


def test_channels_that_hang_together_as_one_are_frozen() -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.head = nn.Linear(3, 8), nn.Linear(7, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.wide(x)
            return self.head(x[:, 1:] + x[:, :-1])

    group = capture(Chain(), torch.zeros(1, 3)).groups["wide"]
    assert group.size == 1
    assert group.frozen is not None
    assert "one by one" in group.frozen.text


def described(graph: Graph) -> str:
    return json.dumps([g.to_dict() for g in graph.groups])


def test_names_and_order_are_the_same_in_every_capture() -> None:
    for name in NETWORKS:
        model, inputs = build(name)
        first, second = capture(model, inputs), capture(build(name, seed=1)[0], inputs)
        assert described(first) == described(second)
        assert first.fingerprint == second.fingerprint


def test_names_and_order_are_the_same_in_another_process() -> None:
    program = (
        "from tests.networks import build; from billhook.graph import capture; import json\n"
        "graph = capture(*build('chunk_concat'))\n"
        "print(json.dumps([g.to_dict() for g in graph.groups])); print(graph.fingerprint)"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    graph = capture(*build("chunk_concat"))
    assert done.stdout.split("\n")[:2] == [described(graph), graph.fingerprint]


def test_every_index_belongs_to_at_most_one_group() -> None:
    for name in NETWORKS:
        graph = capture(*build(name))
        seen: dict[tuple[str, int], list[int]] = {}
        for group in graph.groups:
            for m in group.members:
                seen.setdefault((m.tensor, m.axis), []).extend(m.index.reshape(-1).tolist())
                assert m.index.shape[0] == group.size
        for (tensor, axis), indices in seen.items():
            assert len(set(indices)) == len(indices)
            assert max(indices) < graph.program.shapes[tensor][axis]


def test_the_length_of_a_dimension_is_affine_in_the_units_kept() -> None:
    graph = capture(Parts(), torch.zeros(1, 3))
    labels = graph.partition.axes["whole.weight", 0]
    position = {g.id: i for i, g in enumerate(graph.groups)}
    assert graph.partition.affine(labels) == (
        0, ((position["whole[0:4]"], 1), (position["whole[4:10]"], 1), (position["whole[10:12]"], 1))
    )  # fmt: skip
    keep = [None if g.id != "whole[4:10]" else np.arange(6) < 2 for g in graph.groups]
    assert graph.partition.kept(labels, keep).astype(int).tolist() == [1] * 4 + [1, 1, 0, 0, 0, 0] + [1, 1]
