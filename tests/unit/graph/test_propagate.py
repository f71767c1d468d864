"""Propagation: outputs are protected, unknown operators freeze what they touch, carriers are chosen well."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from billhook.graph import capture
from tests.oracle import prune_half, randomize


class Unknown(nn.Module):
    """`cdist` has no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.touched, self.head = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.touched(self.free(x).relu())
        return self.head(torch.cdist(x, x))


def test_an_operator_without_a_rule_freezes_what_it_touches_and_says_where() -> None:
    groups = capture(Unknown(), torch.zeros(2, 3, 4)).groups
    assert groups["free"].prunable
    reason = groups["touched"].frozen
    assert reason is not None
    assert "no rule for operator" in reason.text
    assert "cdist" in reason.text
    assert reason.source.startswith(f"{__file__}:")
    assert "torch.cdist(x, x)" in reason.source


def test_a_network_with_an_unknown_operator_is_still_pruned_right() -> None:
    prune_half(randomize(Unknown()), torch.randn(2, 3, 4))


class Outputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 5), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> dict[str, object]:
        x = self.inner(x).relu()
        return {"a": self.a(x), "more": (self.b(x).softmax(-1), {"deep": x.mean()})}


def test_every_output_is_protected_without_being_named() -> None:
    groups = capture(Outputs(), torch.zeros(2, 4), mixing="allow").groups
    assert [g.id for g in groups.frozen] == ["a", "b"]
    assert all(g.frozen is not None and "model output" in g.frozen.text for g in groups.frozen)


def test_the_users_input_is_never_cut() -> None:
    graph = capture(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)), torch.zeros(1, 3, 4, 4))
    assert [g.id for g in graph.groups] == ["0", "1"]
    assert not any((m.tensor, m.axis) == ("0.weight", 1) for g in graph.groups for m in g.members)


class Heads(nn.Module):
    """As many heads as channels per head: only what follows tells them apart."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, 4
        self.qkv, self.out = nn.Linear(6, 48), nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).reshape(b, t, -1))


def test_heads_carry_the_labels_of_attention() -> None:
    group = capture(Heads(), torch.zeros(2, 5, 6)).groups["qkv"]
    assert group.size == 4
    (rows,) = (m for m in group.members if (m.tensor, m.axis) == ("qkv.weight", 0))
    assert rows.index[1].tolist() == [4, 5, 6, 7, 20, 21, 22, 23, 36, 37, 38, 39]


def test_the_choice_of_heads_is_right() -> None:
    small = prune_half(randomize(Heads()), torch.randn(2, 5, 6)).small
    assert isinstance(small, Heads)
    assert (small.num_heads, small.head_dim) == (2, 4)


class SpaceToDepth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(3, 24), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.wide(x).relu().unflatten(-1, (4, 6)).amax(1))


def test_without_attention_the_larger_dimension_carries_the_labels() -> None:
    group = capture(SpaceToDepth(), torch.zeros(2, 3)).groups["wide"]
    assert group.size == 6
    assert group.width == 4
