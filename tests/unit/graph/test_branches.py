"""Residual branches: which may vanish, what belongs to them, and a network without them."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import billhook
from billhook.deploy import export
from billhook.errors import PlanError
from billhook.graph import (
    ExportedNetwork,
    Graph,
    Plan,
    apply,
    apply_,
    capture,
    load,
    make_plan,
    save,
    silence,
    verify,
)
from tests.networks import build
from tests.oracle import outputs, random_plan, randomize
from tests.residual import RESIDUAL, residual, residual_graph


def without(graph: Graph, *names: str, half: bool = True) -> Plan:
    """Return a plan without these branches; half of everything else leaves too."""
    keep = dict(random_plan(graph).keep) if half else {}
    for branch in graph.branches:
        if branch.id in names:
            keep[branch.own[0]] = np.zeros(graph.groups[branch.own[0]].size)
    return make_plan(graph, keep)


def shown(graph: Graph) -> dict[str, tuple[str, ...]]:
    return {b.id: b.groups for b in graph.branches}


def weights(network: nn.Module) -> tuple[int, int]:
    tensors = [*network.parameters(), *network.buffers()]
    return sum(p.numel() for p in network.parameters()), sum(t.numel() * t.element_size() for t in tensors)


def found(body: type[nn.Module], x: Tensor | None = None) -> tuple[nn.Module, Graph]:
    model = randomize(body().eval())
    return model, capture(model, torch.randn(2, 3, 8, 8) if x is None else x)


# What is a branch


def test_a_branch_is_named_after_its_block_or_its_last_layer() -> None:
    assert shown(residual_graph("bottleneck")) == {
        "layer1.0": ("layer1.0.conv1", "layer1.0.conv2"),
        "layer1.1": ("layer1.1.conv1", "layer1.1.conv2"),
        "layer2.0": ("layer2.0.conv1", "layer2.0.conv2"),
    }
    assert shown(residual_graph("functions")) == {"bn2": ("inner1",), "bn4": ("inner2",)}
    assert shown(residual_graph("attention")) == {"project": ("query_key_value",), "down": ("up",)}
    assert shown(residual_graph("squeeze")) == {"bn3": ("expand", "squeeze")}


def test_everything_that_serves_the_branch_alone_belongs_to_it() -> None:
    graph = residual_graph("basic")
    block = graph.branches[2]
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    layers = {f"layer2.0.{c}.weight" for c in ("conv1", "conv2")}
    assert block.tensors == layers | {f"layer2.0.{n}.{t}" for n in ("bn1", "bn2") for t in norm}
    assert graph.branch_of["layer2.0.conv1"] is block
    assert "layer2.0.downsample.0" not in graph.branch_of


@pytest.mark.parametrize("name", ["plain", "concat", "grouped", "shuffle", "transposed"])
def test_networks_without_additions_have_no_branches(name: str) -> None:
    assert capture(*build(name)).branches == ()


def test_a_sum_with_something_that_does_not_depend_on_the_input_has_no_branch() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)
            self.shift = nn.Parameter(torch.randn(2, 6, 8, 8))

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.shift + self.b(self.a(x).relu()))

    assert found(Positions)[1].branches == ()


def test_a_layer_that_is_used_elsewhere_too_is_no_branch() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
            self.up, self.down = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for _ in range(2):
                x = x + self.down(self.up(x).relu())
            return self.out(x)

    assert found(Shared)[1].branches == ()


class Both(nn.Module):
    """Two operands that could both go; the second needs less."""

    def __init__(self) -> None:
        super().__init__()
        self.a1, self.a2, self.a3 = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 6, 1)
        self.b1, self.b2 = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1)
        self.out = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.a3(self.a2(self.a1(x).relu()).relu()) + self.b2(self.b1(x).relu()))


def test_one_operand_always_stays() -> None:
    assert shown(found(Both)[1]) == {"b2": ("b1",)}


class Nested(nn.Module):
    """A branch within a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.first, self.last = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 1)
        self.up, self.norm, self.down = nn.Conv2d(12, 10, 1), nn.BatchNorm2d(10), nn.Conv2d(10, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = self.first(x).relu()
        y = y + self.down(self.norm(self.up(y)).relu())
        return self.out(x + self.last(y))


def test_the_inner_one_of_nested_branches_may_go_alone() -> None:
    model, graph = found(Nested)
    assert shown(graph) == {"down": ("up",), "last": ("first", "up")}
    assert [b.own for b in graph.branches] == [("up",), ("first",)]
    x = torch.randn(2, 3, 8, 8)
    for name, gone in (("down", {"up"}), ("last", {"first", "up"})):
        plan = without(graph, name)
        assert {n for n, count in plan.counts.items() if not count} == gone
        small = apply(model, plan)
        assert verify(model, plan, x, small=small).exact
        assert weights(small) == (graph.costs.cost(plan).params, graph.costs.cost(plan).bytes)


# Plans


def test_one_empty_group_empties_the_branch() -> None:
    graph = residual_graph("bottleneck")
    plan = make_plan(graph, {"layer1.1.conv2": np.zeros(4)})
    assert plan.counts == {"layer1.1.conv1": 0, "layer1.1.conv2": 0}
    assert plan.removed == {"layer1.1.conv1": 4, "layer1.1.conv2": 4}
    assert [b.id for b in graph.dropped(plan)] == ["layer1.1"]


def test_a_plan_without_a_branch_survives_json() -> None:
    graph = residual_graph("basic")
    plan = without(graph, "layer1.0")
    assert plan.to_dict()["groups"]["layer1.0.conv1"]["keep"] == ""
    assert Plan.from_json(plan.to_json()) == plan


def test_a_group_outside_of_branches_keeps_something() -> None:
    graph = residual_graph("basic")
    with pytest.raises(PlanError, match=r"'stem'; at least one must stay.*residual branch"):
        make_plan(graph, {"stem": np.zeros(8)})


def test_a_plan_that_was_written_by_hand_is_completed() -> None:
    model, x = residual("bottleneck")
    data = make_plan(residual_graph("bottleneck"), {}).to_dict()
    data["groups"] = {"layer1.1.conv2": {"size": 4, "keep": ""}}
    assert verify(model, Plan.from_dict(data), x).exact


# Networks without branches


@pytest.mark.parametrize("name", RESIDUAL)
def test_each_branch_and_all_of_them_can_leave(name: str) -> None:
    model, x = residual(name)
    graph = residual_graph(name)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    everything = [b.id for b in graph.branches]
    for names in {tuple(everything[:1]), tuple(everything[-1:]), tuple(everything)}:
        plan = without(graph, *names)
        small = apply(model, plan)
        check = verify(model, plan, x, small=small)
        assert check.exact, (names, check)
        told = graph.costs.cost(plan)
        assert (told.params, told.bytes) == weights(small)
        rebuilt = capture(small, x).costs.cost()
        assert told.macs == rebuilt.macs
        assert told.peak_activation_bytes <= graph.costs.cost().peak_activation_bytes
        gone = {t for b in graph.dropped(plan) for t in b.tensors}
        assert small.state_dict().keys() == model.state_dict().keys() - gone
        assert not [n for n in capture(small, x).branches if n.id in names]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", RESIDUAL)
def test_the_branch_matters_to_the_output(name: str) -> None:
    model, x = residual(name)
    graph = residual_graph(name)
    for branch in graph.branches:
        plan = without(graph, branch.id, half=False)
        changed = (silence(model, plan, x)(x) - model(x)).detach().abs().max() / model(x).detach().abs().max()
        assert changed > 1e-3, branch.id


def test_silence_by_hand() -> None:
    model, x = residual("functions")
    with torch.no_grad():
        y = model.bn(model.stem(x)).relu()
        y = (y + model.bn2(model.outer1(model.bn1(model.inner1(y)).relu()))).relu()
        expected = model.head(model.project(y).relu().mean((2, 3)))
    plan = make_plan(residual_graph("functions"), {"inner2": np.zeros(16)})
    torch.testing.assert_close(silence(model, plan, x)(x), expected)
    torch.testing.assert_close(apply(model, plan)(x), expected)


@pytest.mark.parametrize("name", ["basic", "bottleneck", "pre-activation", "resnet-20", "transformer"])
def test_only_the_block_is_replaced(name: str) -> None:
    model, _ = residual(name)
    graph = residual_graph(name)
    small = apply(model, without(graph, graph.branches[0].id, half=False))
    assert type(small) is type(model)
    assert not isinstance(small, ExportedNetwork)


def test_where_the_whole_network_adds_it_becomes_its_graph(caplog: pytest.LogCaptureFixture) -> None:
    model, _ = residual("functions")
    assert isinstance(apply(model, without(residual_graph("functions"), "bn2")), ExportedNetwork)
    assert "forward computes 'bn2', which is gone" in caplog.text


@pytest.mark.parametrize("name", RESIDUAL)
def test_batches_of_other_sizes(name: str) -> None:
    model, x = residual(name)
    graph = residual_graph(name)
    small = apply(model, without(graph, graph.branches[-1].id, half=False))
    together = small(x.repeat(3, 1, 1, 1)[:5])
    torch.testing.assert_close(together[2:4], small(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", RESIDUAL)
def test_the_smaller_network_can_be_trained(name: str) -> None:
    model, x = residual(name)
    model.train()
    graph = residual_graph(name)
    small = apply(model, without(graph, *(b.id for b in graph.branches)))
    assert all(m.training for m in small.modules())
    statistics = {n: b.clone() for n, b in small.named_buffers() if n.endswith("running_mean")}
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1)
    small(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in small.parameters())
    before = [p.clone() for p in small.parameters()]
    optimizer.step()
    assert not all(torch.equal(p, b) for p, b in zip(small.parameters(), before, strict=True))
    buffers = dict(small.named_buffers())
    assert all(not torch.equal(b, buffers[n]) for n, b in statistics.items())
    trained = small.eval()(x)
    torch.testing.assert_close(copy.deepcopy(small)(x), trained)


def test_modes_carry_over() -> None:
    model, _ = residual("basic")
    model.train()
    model.layer1.eval()
    small = apply(model, without(residual_graph("basic"), "layer1.0", "layer2.0"))
    assert small.training
    assert not small.layer1[0].training
    assert small.layer2[0].training


@pytest.mark.parametrize("name", ["functions", "basic", "transformer"])
def test_it_can_be_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model, x = residual(name)
    graph = residual_graph(name)
    plan = without(graph, *(b.id for b in graph.branches[:2]))
    small = apply(model, plan)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.mul_(1.1)
    save(tmp_path / "tuned", small, plan)
    read = load(tmp_path / "tuned", RESIDUAL[name]).eval()
    torch.testing.assert_close(read(x), small(x))
    save(tmp_path / "original", model, plan)
    read = load(tmp_path / "original", RESIDUAL[name]).eval()
    torch.testing.assert_close(read(x), apply(model, plan)(x))


@pytest.mark.parametrize("name", ["functions", "basic", "transformer"])
def test_it_can_be_exported(name: str, tmp_path: Path) -> None:
    model, x = residual(name)
    graph = residual_graph(name)
    small = apply(model, without(graph, graph.branches[0].id))
    artifact = export(small, x, tmp_path / name, backend="onnxruntime")
    assert artifact.manifest.parity["max_rel_error"] < 1e-4


def test_it_can_be_pruned_again() -> None:
    model, x = residual("basic")
    once = apply(model, without(residual_graph("basic"), "layer1.0"))
    graph = capture(once, x)
    assert list(shown(graph)) == ["layer1.1", "layer2.0"]
    plan = without(graph, "layer1.1")
    twice = apply(once, plan)
    assert verify(once, plan, x, small=twice).exact
    assert weights(twice)[0] == graph.costs.cost(plan).params


def test_a_model_can_lose_branches_in_place() -> None:
    model, x = residual("basic")
    plan = without(residual_graph("basic"), "layer1.0")
    expected = apply(model, plan)(x)
    assert apply_(model, plan) is model
    torch.testing.assert_close(model(x), expected)


def test_it_is_exact_where_the_branch_mixes_channels() -> None:
    model, x = residual("transformer")
    graph = capture(model, x, mixing="allow")
    plan = without(graph, *(b.id for b in graph.branches), half=False)
    assert verify(model, plan, x).exact


def test_the_top_level_functions_do_the_same() -> None:
    model, x = residual("basic")
    plan = without(residual_graph("basic"), "layer1.0")
    assert billhook.verify(model, plan, x).exact
    assert billhook.cost(model, x, plan).params == weights(billhook.apply(model, plan))[0]


# Tensors that are changed in place


class Around(nn.Module):
    """What the tests below have in common."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.up, self.down = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 1)

    def branch(self, x: Tensor) -> Tensor:
        return self.down(self.up(x).relu_())

    def block(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.block(self.stem(x)))


class SumChanged(Around):
    def block(self, x: Tensor) -> Tensor:
        return (x + self.branch(x)).relu_() - 2 * x


class SumChangedByStatement(Around):
    def block(self, x: Tensor) -> Tensor:
        total = x + self.branch(x)
        total.relu_()
        return total - 2 * x


class OperandChangedLater(Around):
    def block(self, x: Tensor) -> Tensor:
        total = x + self.branch(x)
        x.relu_()
        return total - 2 * x


class OperandChangedByTheSum(Around):
    def block(self, x: Tensor) -> Tensor:
        y = x * 1
        y += self.branch(x)
        return y.relu_() - 2 * x


class SumOfViews(Around):
    def block(self, x: Tensor) -> Tensor:
        total = x.flatten(2) + self.branch(x).flatten(2)
        return total.view(x.shape).relu_() - 2 * x


class BranchChangedInPlace(Around):
    def block(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        y.mul_(2)
        y += x
        return y.relu_() - 2 * x


IN_PLACE = [
    SumChanged,
    SumChangedByStatement,
    OperandChangedLater,
    OperandChangedByTheSum,
    SumOfViews,
    BranchChangedInPlace,
]


@pytest.mark.parametrize("body", IN_PLACE)
def test_nobody_sees_what_the_sum_would_have_hidden(body: type[Around]) -> None:
    x = torch.randn(2, 3, 8, 8)
    model, graph = found(body, x)
    assert shown(graph) == {"down": ("up",)}
    plan = without(graph, "down", half=False)
    small = apply(model, plan)
    assert verify(model, plan, x, small=small).exact
    model.branch = lambda x: torch.zeros_like(x)  # type: ignore[method-assign]
    torch.testing.assert_close(outputs(small, x), outputs(model, x))


def test_a_branch_that_changes_what_others_read_leaves_that_change() -> None:
    class Changes(Around):
        def block(self, x: Tensor) -> Tensor:
            y = self.down(self.up(x.relu_()))
            return x + y

    x = torch.randn(2, 3, 8, 8)
    model, graph = found(Changes, x)
    plan = without(graph, "down", half=False)
    small = apply(model, plan)
    assert verify(model, plan, x, small=small).exact
    with torch.no_grad():
        torch.testing.assert_close(small(x), model.out(model.stem(x).relu()))


def test_a_caller_that_changes_the_sum_in_place_changes_nothing_else() -> None:
    class Block(Around):
        def forward(self, x: Tensor) -> Tensor:
            return x + self.branch(x)

    class Caller(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block, self.out = nn.Conv2d(3, 8, 1), Block(), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.out(self.block(x).relu_() - 2 * x)

    x = torch.randn(2, 3, 8, 8)
    model, graph = found(Caller, x)
    plan = without(graph, "block", half=False)
    small = apply(model, plan)
    assert isinstance(small, Caller)
    assert verify(model, plan, x, small=small).exact
