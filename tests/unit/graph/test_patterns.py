"""Structures in plans: they survive JSON, are carried out, checked and costed; hostile ones are refused."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook.errors import InputError, PlanError
from billhook.graph import Graph, Plan, apply, capture, make_plan, verify
from billhook.graph.packing import to_text
from billhook.graph.patterns import parse_pattern, patterns
from billhook.graph.structure import Structure, impose_, viewed
from billhook.graph.weights import WeightLayer
from billhook.options import Number
from billhook.registry import Info
from billhook.sparse.patterns.kernel_pattern import KernelPattern
from billhook.sparse.patterns.n_m import NM
from billhook.sparse.patterns.unified import Unified
from tests.networks import build
from tests.oracle import random_plan

VARIANTS = ["8x3", "3x2", "block:axis=rows", "block:axis=both", "1:4", "unified:2x3,unify=0.4", "unified:4x4"]
EVERY = [*patterns.names(), *VARIANTS]
TENSORS = {  # shape, inputs first
    "conv": ((9, 8, 3, 3), False),
    "conv1d": ((8, 9, 3), False),
    "linear": ((11, 10), False),
    "transposed": ((8, 7, 3, 3), True),
    "large kernel": ((5, 4, 3, 3, 3), False),
}
BITS = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32}


def made(text: str, kind: str, sparsity: float = 0.6, seed: int = 0) -> tuple[Tensor, Structure]:
    """Return a weight and its structure."""
    shape, transposed = TENSORS[kind]
    pattern = parse_pattern(text)
    w = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return w, Structure(
        pattern, shape, pattern.choose(viewed(w, transposed=transposed), sparsity), transposed
    )


def fits(text: str, kind: str) -> bool:
    shape, transposed = TENSORS[kind]
    first, second = (shape[1], shape[0]) if transposed else shape[:2]
    return parse_pattern(text).refusal((first, second, int(np.prod(shape[2:])))) is None


CASES = [(text, kind) for text in EVERY for kind in TENSORS if fits(text, kind)]
LINEAR_ONLY = {"block", "block:axis=rows", "block:axis=both"}


def test_every_pattern_is_tried_where_it_belongs() -> None:
    kinds = {text: {kind for t, kind in CASES if t == text} for text in EVERY}
    for text, found in kinds.items():
        if text in LINEAR_ONLY:
            assert found == {"linear"}
        else:
            expected = {"conv", "transposed"} if text == "kernel_pattern" else set(TENSORS)
            assert found == expected, text


@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize(("text", "kind"), CASES)
def test_a_weight_comes_back_bit_by_bit(text: str, kind: str, dtype: torch.dtype) -> None:
    w, s = made(text, kind)
    w = w.to(dtype)
    held = torch.where(s.mask, s.project(w), 0)
    zeros = torch.where(s.mask, torch.copysign(torch.zeros_like(w), w), 0)  # of both signs
    assert torch.signbit(zeros).any()
    for tensor in (held, zeros):
        again = s.decode(s.encode(tensor))
        assert again.dtype == dtype
        assert again.is_contiguous()
        assert torch.equal(again.view(BITS[dtype]), tensor.view(BITS[dtype]))


@pytest.mark.parametrize(("text", "kind"), CASES)
def test_a_structure_survives_json(text: str, kind: str) -> None:
    w, s = made(text, kind)
    plan = Plan({}, "f", patterns={"layer.weight": s})
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.to_json() == plan.to_json()
    assert torch.equal(again.patterns["layer.weight"].project(w), s.project(w))
    assert str(again.patterns["layer.weight"].pattern) == str(s.pattern)
    assert parse_pattern(str(s.pattern)) == s.pattern


@pytest.mark.parametrize(("text", "kind"), CASES)
def test_projecting_twice_is_projecting_once(text: str, kind: str) -> None:
    w, s = made(text, kind)
    z = s.project(w)
    assert torch.equal(s.project(z), z)
    assert int((z != 0).sum()) == s.nonzeros == int(s.mask.sum())
    assert s.values <= s.nonzeros
    assert s.mask.shape == w.shape
    assert not z[~s.mask].any()


@pytest.mark.parametrize(("text", "kind"), CASES)
def test_what_is_stored_is_smaller_and_counted_right(text: str, kind: str) -> None:
    w, s = made(text, kind)
    sizes = [t.numel() * t.element_size() for t in s.encode(s.project(w)).values()]
    arrays = s.to_dict()["parts"].values()
    unpacked = sum(len(zlib.decompress(base64.b64decode(a))) for a in arrays)
    assert s.stored_bytes(4) == sum(sizes) + unpacked


@pytest.mark.parametrize(("text", "kind"), CASES)
def test_any_array_in_range_is_refused_or_harmless(text: str, kind: str) -> None:
    w, s = made(text, kind)
    rng = np.random.default_rng(0)
    layout = s.pattern.layout(tuple(viewed(w, transposed=s.transposed).shape))  # type: ignore[arg-type]
    for top in (1, None, None):  # all zero, then anything
        parts = {n: rng.integers(0, top or p.levels, p.shape) for n, p in layout.items()}
        entry = {**s.to_dict(), "parts": {n: to_text(parts[n], p.levels) for n, p in layout.items()}}
        if s.pattern.flaw(parts, tuple(viewed(w, transposed=s.transposed).shape)):  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="no structure of the pattern"):
                Structure.from_dict(entry)
            continue
        hostile = Structure.from_dict(entry)
        z = hostile.project(w)
        assert hostile.to_dict() == entry
        assert torch.equal(hostile.decode(hostile.encode(z)), z)
        assert 0 <= hostile.values <= hostile.nonzeros <= w.numel()
        assert hostile.stored_bytes(4) > 0


@pytest.mark.parametrize(("text", "kind"), CASES)
def test_units_are_what_leaves(text: str, kind: str) -> None:
    w, s = made(text, kind)
    view = viewed(w, transposed=s.transposed)
    units = s.pattern.units(view.square())
    torch.testing.assert_close(s.pattern.norms(view).square(), units)
    low, high = s.pattern.sparsities(tuple(view.shape))  # type: ignore[arg-type]
    assert 0 <= low <= high < 1
    assert s.pattern.units(view.square().requires_grad_()).requires_grad  # penalties pull on them


def text_of(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def entry(text: str = "4x1") -> dict[str, Any]:
    kind = next(kind for t, kind in CASES if t == text)
    return made(text, kind)[1].to_dict()


def edited(text: str = "3x2", **changes: Any) -> dict[str, Any]:
    return {**entry(text), **changes}


def with_part(text: str, name: str, value: Any) -> dict[str, Any]:
    data = entry(text)
    return {**data, "parts": {**data["parts"], name: value}}


HOSTILE: dict[str, Callable[[], Any]] = {
    "null": lambda: None,
    "a list": lambda: [1, 2],
    "text": lambda: "4x1",
    "empty": dict,
    "no parts": lambda: {k: v for k, v in entry("3x2").items() if k != "parts"},
    "an unknown entry": lambda: edited(code="import os"),
    "unknown pattern": lambda: edited(pattern="fractal"),
    "private pattern": lambda: edited(pattern="_blocks"),
    "path as pattern": lambda: edited(pattern="../../os"),
    "pattern is a number": lambda: edited(pattern=3),
    "options is a list": lambda: edited(options=[]),
    "no options": lambda: edited(options=None),
    "unknown option": lambda: edited(options={"height": 3}),
    "option out of range": lambda: edited(options={"rows": 0}),
    "option of a wrong type": lambda: edited(options={"rows": "3"}),
    "option is true": lambda: edited(options={"rows": True}),
    "option is NaN": lambda: edited("unified:4x4", options={"unify": float("nan")}),
    "other options": lambda: edited(options={"rows": 2, "columns": 2}),
    "n above m": lambda: edited("1:4", options={"n": 5, "m": 4}),
    "library of other sizes": lambda: edited("kernel_pattern", options={"fixed": "o--------"}),
    "fixed is no text": lambda: edited("kernel_pattern", options={"fixed": 1}),
    "shape is text": lambda: edited(shape="9x8"),
    "shape of one axis": lambda: edited(shape=[9]),
    "no shape": lambda: edited(shape=None),
    "shape with zero": lambda: edited(shape=[9, 0, 3, 3]),
    "negative shape": lambda: edited(shape=[9, -8, 3, 3]),
    "fractional shape": lambda: edited(shape=[9.0, 8, 3, 3]),
    "shape with true": lambda: edited(shape=[True, 8, 3, 3]),
    "absurd shape": lambda: edited(shape=[2**40, 2**40]),
    "another shape": lambda: edited(shape=[10, 8, 3, 3]),
    "fewer axes": lambda: edited(shape=[9, 8]),
    "transposed is a number": lambda: edited(transposed=1),
    "transposed after all": lambda: edited("8x3", transposed=True),
    "shape that is refused": lambda: edited("kernel_pattern", shape=[9, 8, 5, 5]),
    "convolution in blocks": lambda: edited("block", shape=[11, 10, 3, 3]),
    "parts is a list": lambda: edited(parts=[]),
    "a part too many": lambda: with_part("3x2", "more", "x"),
    "another part": lambda: edited(parts={"role": "x"}),
    "part is a number": lambda: with_part("3x2", "keep", 3),
    "part is null": lambda: with_part("3x2", "keep", None),
    "part is no base64": lambda: with_part("3x2", "keep", "%%%"),
    "part is not ASCII": lambda: with_part("3x2", "keep", "é"),
    "part is not compressed": lambda: with_part("3x2", "keep", "aGVsbG8="),
    "part too short": lambda: with_part("3x2", "keep", text_of(b"\x00\x00")),
    "part too long": lambda: with_part("3x2", "keep", text_of(b"\x00" * 1000)),
    "a bomb": lambda: with_part("3x2", "keep", text_of(b"\x00" * 100_000_000)),
    "role 3 of 0 to 2": lambda: with_part("unified:4x4", "role", to_text(np.full(54, 3), 4)),
    "choice beyond the library": lambda: with_part("kernel_pattern", "choice", to_text(np.full(72, 15), 16)),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_structure_is_refused_by_name(data: Callable[[], Any]) -> None:
    plan = {**Plan({}, "f").to_dict(), "patterns": {"layer.weight": data()}}
    with pytest.raises(PlanError, match=r"layer\.weight"):
        Plan.from_dict(plan)


@pytest.mark.parametrize("data", [[], 3, "x"])
def test_patterns_are_a_table(data: Any) -> None:
    with pytest.raises(PlanError, match="patterns"):
        Plan.from_dict({**Plan({}, "f").to_dict(), "patterns": data})


@pytest.mark.parametrize("text", EVERY)
def test_random_edits_are_refused_or_harmless(text: str) -> None:
    rng = np.random.default_rng(len(text))
    data = entry(text)
    shape = data["shape"]
    for _ in range(40):
        parts = {}
        for name, packed in data["parts"].items():
            raw = bytearray(zlib.decompress(base64.b64decode(packed)))
            raw[int(rng.integers(len(raw)))] = int(rng.integers(256))
            parts[name] = text_of(bytes(raw[: len(raw) - int(rng.integers(5) == 0)]))
        try:
            plan = Plan.from_json(
                json.dumps({**Plan({}, "f").to_dict(), "patterns": {"w": {**data, "parts": parts}}})
            )
        except PlanError:
            continue
        structure = plan.patterns["w"]
        assert structure.project(torch.ones(shape)).shape == tuple(shape)
        assert structure.mask.shape == tuple(shape)


def flags(*shape: int, on: object = ...) -> str:
    array = np.zeros(shape, dtype=bool)
    array[on] = True
    return to_text(array, 2)


@pytest.mark.parametrize(
    ("text", "parts", "message"),
    [
        ("2:4", {"keep": flags(9, 8, 9)}, "4 of 4 inputs stay somewhere, 2 at most"),
        ("1:3", {"keep": flags(9, 8, 9, on=(3, slice(6, 8), 5))}, "2 of 3 inputs stay"),
        ("kernel_pattern", {"library": flags(8, 9)}, "do not keep 4 positions"),
        ("kernel_pattern", {"library": flags(8, 9, on=(2, [0, 1, 4]))}, "do not keep 4 positions"),
        ("kernel_pattern:fixed=oooo-----", {"library": flags(8, 9, on=(0, [1, 2, 3, 4]))}, "besides oooo---"),
        ("block_diagonal", {"row_block": to_text(np.zeros(9), 4)}, r"\[9, 0, 0, 0\] outputs"),
        ("block_diagonal", {"column_block": to_text(np.arange(8) // 3, 4)}, r"expected \[2, 2, 2, 2\]"),
    ],
)
def test_arrays_that_are_none_of_their_pattern_are_refused(
    text: str, parts: dict[str, str], message: str
) -> None:
    data = made(text, "conv")[1].to_dict()
    assert Structure.from_dict(data).to_dict() == data
    plan = {**Plan({}, "f").to_dict(), "patterns": {"w": {**data, "parts": {**data["parts"], **parts}}}}
    with pytest.raises(PlanError, match=message):
        Plan.from_dict(plan)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize("text", EVERY)
def test_the_structure_of_a_broken_weight_is_a_structure(text: str, dtype: torch.dtype, value: float) -> None:
    kind = "linear" if text in LINEAR_ONLY else "conv"
    w, s = made(text, kind)
    w = torch.where(torch.rand(w.shape, generator=torch.Generator().manual_seed(1)) < 0.5, w, value).to(dtype)
    parts = s.pattern.choose(viewed(w), 0.6)
    again = Structure.from_dict(Structure(s.pattern, s.shape, parts).to_dict())
    least, _ = s.pattern.sparsities(tuple(viewed(w).shape))  # type: ignore[arg-type]
    assert again.sparsity >= least
    assert again.nonzeros > 0


@pytest.mark.parametrize("scale", [1e-5, 300.0])
@pytest.mark.parametrize("text", EVERY)
def test_half_precision_has_the_projection_of_its_numbers(text: str, scale: float) -> None:
    kind = "linear" if text in LINEAR_ONLY else "conv"
    w, s = made(text, kind)
    # Of numbers as small and as large, squares are no numbers of half precision.
    w = ((1 + 22 * w.abs() / w.abs().max()) * scale * w.sign()).half()
    assert bool((w.square().isinf() | (w.square() < 1e-7)).all())
    view = viewed(w)
    chosen = [Structure(s.pattern, s.shape, s.pattern.choose(v, 0.6)) for v in (view, view.float())]
    assert chosen[0] == chosen[1]
    assert torch.equal(chosen[0].project(w), chosen[1].project(w.float()).half())
    torch.testing.assert_close(s.pattern.norms(view), s.pattern.norms(view.float()))
    energy = view.float().square()
    for few in (energy.half(), energy.bfloat16()):
        assert s.pattern.units(few).numel() == s.pattern.units(energy).numel()
        parts = s.pattern.select(few, 0.6)
        assert s.pattern.flaw(parts, tuple(view.shape)) is None  # type: ignore[arg-type]


def test_patterns_of_more_weights_than_a_plan_may_have_are_not_unpacked() -> None:
    data = edited("filter", shape=[1, 2**22], parts={"keep": to_text(np.ones(1), 2)})
    table = {**Plan({}, "f").to_dict(), "patterns": {f"w{i}": data for i in range(64)}}
    assert len(Plan.from_dict(table).patterns) == 64
    more = {**table["patterns"], "one": {**data, "shape": [1, 1], "parts": None}}
    with pytest.raises(PlanError, match=r"'one': up to it there are more than \d+ weights"):
        Plan.from_dict({**table, "patterns": more})
    with pytest.raises(PlanError, match="'w'"):
        Plan.from_dict({**table, "patterns": {"w": {**data, "shape": [10**4000] * 8}}})


def test_a_pattern_knows_its_name_without_being_looked_up() -> None:
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    entry = importlib.import_module('billhook.sparse.patterns.' + name).ENTRY\n"
        "    print(entry.name, entry())\n"
    )
    command = [sys.executable, "-c", program, *patterns.names()]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert told[::2] == patterns.names()
    assert [parse_pattern(text) for text in told[1::2]] == [patterns.get(name)() for name in patterns.names()]


def test_a_pattern_from_outside_goes_by_the_name_it_was_added_by() -> None:
    class Own(type(parse_pattern("filter"))):  # type: ignore[misc]
        pass

    assert Own.name == "test_patterns"
    patterns.add("own", Own, Info("mine"))
    try:
        _, s = made("own", "linear")
        assert str(s.pattern) == "own"
        assert Structure.from_dict(s.to_dict()) == s
        assert type(parse_pattern("filter")).name == "filter"
    finally:
        patterns.remove("own")


@pytest.mark.parametrize(
    "text", ["9" * 5000 + "x1", "2:" + "9" * 5000, "unified:4x" + "9" * 5000, "9" * 19 + ":4"]
)
def test_a_number_of_thousands_of_digits_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="digits"):
        parse_pattern(text)


@pytest.mark.parametrize("value", [None, 4, ["4x1"], b"4x1"])
def test_what_is_no_text_is_no_pattern(value: Any) -> None:
    with pytest.raises(InputError, match="must be a text such as"):
        parse_pattern(value)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("2:4", NM(2, 4)),
        (" 1:8 ", NM(1, 8)),
        ("unified:4x2", Unified(4, 2)),
        ("unified:4x2, unify=0.5", Unified(4, 2, 0.5)),
        ("kernel_pattern:entries=5", KernelPattern(5)),
    ],
)
def test_short_texts(text: str, pattern: object) -> None:
    assert parse_pattern(text) == pattern


@pytest.mark.parametrize(
    "text", ["", "4x", "x4", "2:", "4x1:rows", "unknown", "block_punched:size=3", "-1x2"]
)
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_pattern(text)


@dataclass(frozen=True)
class Prepared:
    """A network whose channels have left, before patterns; captured once for all tests."""

    model: nn.Module
    x: Tensor
    graph: Graph
    plan: Plan
    layers: tuple[WeightLayer, ...]
    weights: dict[str, Tensor]

    def planned(self, text: str, sparsity: float = 0.6) -> Plan:
        """Return the plan with the pattern wherever it fits."""
        pattern, found = parse_pattern(text), {}
        for layer in self.layers:
            if pattern.refusal(layer.view, layer.groups) is None:
                view = viewed(self.weights[layer.tensor], transposed=layer.transposed)
                parts = pattern.choose(view, pattern.unit_sparsity(sparsity, layer.view))
                found[layer.tensor] = Structure(pattern, layer.shape, parts, layer.transposed)
        assert found
        return self.plan.with_patterns(found)


@cache
def prepared(name: str, channels: bool = False) -> Prepared:
    model, x = build(name)
    graph = capture(model, x)
    plan = random_plan(graph, seed=1) if channels else make_plan(graph, {})
    small = apply(model, plan)
    weights = {n: p.detach() for n, p in small.named_parameters()}
    return Prepared(model, x, graph, plan, capture(small, x).weights, weights)


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("text", EVERY)
def test_a_plan_is_carried_out_checked_and_costed(text: str, channels: bool) -> None:
    network = prepared("flatten" if text in LINEAR_ONLY else "residual", channels)
    model, graph = network.model, network.graph
    plan = network.planned(text).attached(graph)
    before = {n: p.clone() for n, p in model.named_parameters()}
    small = apply(model, plan)
    weights = dict(small.named_parameters())
    for name, s in plan.patterns.items():
        assert tuple(weights[name].shape) == s.shape
        assert not weights[name][~s.mask].any()
        assert torch.equal(s.project(weights[name].detach()), weights[name])
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert verify(model, plan, network.x, small=small).exact

    cost, dense = graph.costs.cost(plan), graph.costs.cost(network.plan)
    positions = {layer.tensor: layer.positions for layer in network.layers}
    gone = sum(int((~s.mask).sum()) * positions[n] for n, s in plan.patterns.items())
    assert dense.macs - cost.macs == gone
    fewer = sum(s.mask.numel() - s.values for s in plan.patterns.values())
    assert dense.params - cost.params == fewer
    saved = sum(4 * s.mask.numel() - s.stored_bytes(4) for s in plan.patterns.values())
    assert dense.bytes - cost.bytes == saved


@pytest.mark.parametrize(
    ("name", "text"), [("transposed", "3x2"), ("grouped", "filter"), ("attention", "block")]
)
def test_a_plan_from_json_needs_no_graph(name: str, text: str) -> None:
    network = prepared(name)
    plan = Plan.from_json(network.planned(text).to_json())
    weights = dict(apply(network.model, plan).named_parameters())
    assert all(not weights[n][~s.mask].any() for n, s in plan.patterns.items())
    assert verify(network.model, plan, network.x).exact


def test_plans_differ_where_their_patterns_do() -> None:
    network = prepared("residual")
    plan, other = network.planned("4x1"), network.planned("4x1", sparsity=0.8)
    name, s = next(iter(plan.patterns.items()))
    assert plan.diff(plan) == {}
    assert plan.diff(other)[name] == (s.nonzeros, other.patterns[name].nonzeros)
    assert plan.diff(network.plan)[name] == (s.nonzeros, s.mask.numel())
    assert network.plan.diff(plan)[name] == (s.mask.numel(), s.nonzeros)


def test_as_many_weights_in_other_places_are_a_difference() -> None:
    _, s = made("filter", "conv", 0.5)
    other = Structure(s.pattern, s.shape, {"keep": np.roll(s.parts["keep"], 1)})
    here, there = (Plan({}, "f", patterns={"w": x}) for x in (s, other))
    assert s != other
    assert here.diff(there) == {"w": (s.nonzeros, s.nonzeros)}


def test_a_plan_for_another_network_is_refused() -> None:
    network = prepared("residual")
    model, plan = network.model, network.planned("4x1")
    with pytest.raises(PlanError):
        apply(prepared("plain").model, plan)
    name, s = next(iter(plan.patterns.items()))
    with pytest.raises(PlanError, match="does not have"):
        apply(model, plan.with_patterns({"nowhere.weight": s}))
    with pytest.raises(PlanError, match="another network"):
        apply(model, plan.with_patterns({name: made("4x1", "linear")[1]}))
    with pytest.raises(PlanError, match="shape"):
        impose_({name: torch.zeros(3, 3)}, {name: s})


def test_a_network_without_the_patterns_of_its_plan_does_not_pass() -> None:
    network = prepared("residual")
    dense = apply(network.model, network.plan)
    assert not verify(network.model, network.planned("4x1"), network.x, small=dense).agrees


@pytest.mark.parametrize("text", ["4x1", "8x4", "1x1", "4x1:remainder=refuse", "2:4", "1:3", "unstructured"])
def test_patterns_are_named_as_people_write_them(text: str) -> None:
    assert str(parse_pattern(text)) == text


@pytest.mark.parametrize("name", patterns.names())
def test_every_pattern_can_be_read_as_it_is_written(name: str) -> None:
    pattern = patterns.get(name)()
    assert parse_pattern(str(pattern)) == pattern


def test_a_number_too_large_for_any_float_is_refused() -> None:
    with pytest.raises(InputError, match="rows"):
        parse_pattern("block_punched:rows=1e400")
    assert not Number(1, 10, integer=True).accepts(10**400)
