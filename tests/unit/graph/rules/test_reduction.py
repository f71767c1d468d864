"""Reductions: over pixels channels pass; a sum over channels consumes them; anything else mixes them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from billhook.graph import capture
from tests.oracle import EVERYTHING, prune_half
from tests.small_net import Case, Net, case, check, net

X, X2 = torch.randn(2, 3), torch.randn(2, 3, 4, 4)


def over(run: object) -> Net:
    return net(run, a=nn.Conv2d(3, 8, 1), b=nn.Linear(8, 2))  # type: ignore[arg-type]


def gate(run: object) -> Net:
    """`run` makes one number per example from the channels of `a`, which nothing else reads."""
    layers = {"f": nn.Linear(3, 6), "a": nn.Linear(6, 8), "c": nn.Linear(6, 5), "b": nn.Linear(5, 2)}
    return net(lambda m, x: m.b(m.c(m.f(x)) * run(m.a(m.f(x))).sigmoid()), **layers)  # type: ignore[operator]


PASSING: dict[str, Case] = {
    "mean": case(lambda: over(lambda m, x: m.b(m.a(x).mean((2, 3)))), X2, a=8),
    "sum": case(lambda: over(lambda m, x: m.b(m.a(x).sum((-1, -2)))), X2, a=8),
    "amax": case(lambda: over(lambda m, x: m.b(m.a(x).amax((2, 3)))), X2, a=8),
    "max with indices": case(lambda: over(lambda m, x: m.b(m.a(x).flatten(2).max(2)[0])), X2, a=8),
    "min": case(lambda: over(lambda m, x: m.b(m.a(x).flatten(2).min(2).values)), X2, a=8),
    "std": case(lambda: over(lambda m, x: m.b(m.a(x).std((2, 3)))), X2, a=8),
    "norm": case(lambda: over(lambda m, x: m.b(m.a(x).flatten(2).norm(dim=2))), X2, a=8),
    "logsumexp": case(lambda: over(lambda m, x: m.b(m.a(x).logsumexp((2, 3)))), X2, a=8),
    "softmax over pixels": case(lambda: over(lambda m, x: m.b((m.a(x).flatten(2).softmax(2) ** 2).sum(2))), X2, a=8),
    "cumsum over pixels": case(lambda: over(lambda m, x: m.b(m.a(x).flatten(2).cumsum(2).mean(2))), X2, a=8),
    "topk over pixels": case(lambda: over(lambda m, x: m.b(m.a(x).flatten(2).topk(3, 2)[0].mean(2))), X2, a=8),
}  # fmt: skip

CONSUMING: dict[str, Case] = {
    "sum": case(lambda: gate(lambda a: a.sum(1, keepdim=True)), X, roles=EVERYTHING, f=6, a=8, c=5),
    "norm": case(lambda: gate(lambda a: a.norm(dim=1, keepdim=True)), X, roles=EVERYTHING, f=6, a=8, c=5),
    "l1 norm": case(lambda: gate(lambda a: a.norm(1, 1, True)), X, roles=EVERYTHING, f=6, a=8, c=5),
    "normalize": case(
        lambda: gate(lambda a: F.normalize(a, dim=1).sum(1, True)), X, roles=EVERYTHING, f=6, a=8, c=5
    ),
}

MIXING: dict[str, Case] = {
    "mean": case(lambda: gate(lambda a: a.mean(1, keepdim=True)), X, {"a": "mean mixes channels"}, f=6, c=5),
    "max": case(lambda: gate(lambda a: a.amax(1, keepdim=True)), X, {"a": "amax mixes channels"}, f=6, c=5),
    "variance": case(lambda: gate(lambda a: a.var(1, keepdim=True)), X, {"a": "var mixes channels"}, f=6, c=5),
    "largest norm": case(lambda: gate(lambda a: a.norm(float("inf"), 1, True)), X, {"a": "mixes channels"}, f=6, c=5),
    "softmax": case(lambda: gate(lambda a: (a.softmax(1) * a).sum(1, True)), X, {"a": "softmax mixes channels"}, f=6, c=5),
    "log softmax": case(lambda: gate(lambda a: a.log_softmax(1).sum(1, True) / 9), X, {"a": "softmax mixes channels"}, f=6, c=5),
}  # fmt: skip


def test_numbers_of_classes_protect_the_classes_always() -> None:
    for pick in (lambda y: y.argmax(1), lambda y: y.max(1)[1], lambda y: y.topk(2, 1).indices):
        model = net(lambda m, x, pick=pick: pick(m.b(m.a(x).relu())), a=nn.Linear(3, 8), b=nn.Linear(8, 4))
        for mixing in ("freeze", "allow"):
            groups = capture(model, X, mixing=mixing).groups
            assert [g.id for g in groups.prunable] == ["a"]


def test_a_largest_value_may_mix_where_its_position_is_not_read() -> None:
    run = lambda a: torch.max(a, 1, True)[0]  # noqa: E731
    check(case(lambda: gate(run), X, mixing="allow", f=6, a=8, c=5))


@pytest.mark.parametrize("name", PASSING)
def test_channels_pass_where_other_dimensions_are_reduced(name: str) -> None:
    check(PASSING[name])


@pytest.mark.parametrize("name", CONSUMING)
def test_sums_over_channels_consume_them(name: str) -> None:
    check(CONSUMING[name])


@pytest.mark.parametrize("name", MIXING)
def test_other_reductions_hold_channels(name: str) -> None:
    check(MIXING[name])


@pytest.mark.parametrize("name", [n for n in MIXING if n not in ("largest norm",)])
def test_other_reductions_mix_channels_if_that_is_allowed(name: str) -> None:
    pruned = prune_half(MIXING[name].build(), X, mixing="allow")
    assert pruned.graph.groups["a"].prunable
    assert pruned.graph.groups["a"].mixed is not None


@pytest.mark.parametrize(
    "run", [lambda a: a.sort(1)[0][:, :1], lambda a: a.cumsum(1)[:, 3:4], lambda a: a.topk(2, 1)[0][:, :1]]
)
def test_what_depends_on_the_order_of_channels_holds_them_always(run: object) -> None:
    check(case(lambda: gate(run), X, {"a": "mixes channels"}, "allow", f=6, c=5))
