"""Weights with patterns in files: as small as what they say, the same bits back, nothing is believed."""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import billhook as bh
from billhook.errors import PlanError, StorageError
from billhook.graph import Plan, apply, capture, load, make_plan, save
from billhook.graph.patterns import parse_pattern, patterns
from billhook.graph.storage import WEIGHTS, read_tensors, write_tensors
from billhook.graph.structure import Structure, viewed
from tests.networks import Plain, Residual, build
from tests.oracle import random_plan

Made = tuple[nn.Module, Tensor, Plan]


def sparse_plan(name: str, pattern: str, sparsity: float, *, channels: bool = False) -> Made:
    """Return a network, its input and a plan with that pattern wherever it fits."""
    model, x = build(name)
    graph = capture(model, x)
    plan = random_plan(graph) if channels else make_plan(graph, {})
    small = apply(model, plan)
    weights = dict(small.named_parameters())
    kind = parse_pattern(pattern)
    found = {}
    for layer in capture(small, x).weights:
        if kind.refusal(layer.view, layer.groups) is None:
            view = viewed(weights[layer.tensor].detach(), transposed=layer.transposed)
            parts = kind.choose(view, kind.unit_sparsity(sparsity, layer.view))
            found[layer.tensor] = Structure(kind, layer.shape, parts, layer.transposed)
    return model, x, plan.with_patterns(found)


@pytest.fixture(scope="module")
def made() -> Made:
    """A network, its input and a plan that lets nine tenths of its weights leave; nobody changes them."""
    return sparse_plan("plain", "4x1", 0.9)


@pytest.fixture(scope="module")
def saved(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a network that is stored with its patterns."""
    folder = tmp_path_factory.mktemp("saved")
    save(folder, apply(made[0], made[2]), made[2])
    return folder


@pytest.mark.parametrize("pattern", ["1x1", "4x1", *patterns.names()])
@pytest.mark.parametrize("name", ["plain", "transposed"])
def test_every_pattern_comes_back_bit_by_bit(name: str, pattern: str, tmp_path: Path) -> None:
    model, _, plan = sparse_plan(name, pattern, 0.5)
    if not plan.patterns:
        pytest.skip("fits no layer of this network")
    small = apply(model, plan)
    save(tmp_path, small, plan)
    again = load(tmp_path, lambda: build(name, seed=3)[0])
    for key, tensor in small.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key
    without_network = read_tensors(tmp_path / WEIGHTS)
    assert without_network.keys() == small.state_dict().keys()
    assert all(torch.equal(without_network[n], t) for n, t in small.state_dict().items())


@pytest.mark.parametrize("pattern", ["4x1", *patterns.names()])
def test_a_file_has_the_bytes_that_its_structures_say(pattern: str, tmp_path: Path) -> None:
    model, _, plan = sparse_plan("plain", pattern, 0.7)
    save(tmp_path, apply(model, plan), plan)
    dense = [t for n, t in apply(model, plan).state_dict().items() if n not in plan.patterns]
    data = (tmp_path / WEIGHTS).read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    expected = sum(s.stored_bytes(4) for s in plan.patterns.values())
    assert len(data) - header == expected + sum(t.numel() * t.element_size() for t in dense)


def test_ninety_percent_of_zeros_make_a_small_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256)), torch.randn(1, 256)
    sparse = bh.sparsify(model, x, sparsity=0.9, pattern="4x1")
    bh.save(tmp_path / "dense", model, make_plan(capture(model, x), {}))
    bh.save(tmp_path / "sparse", sparse.network, sparse.plan)
    dense, small = ((tmp_path / name / WEIGHTS).stat().st_size for name in ("dense", "sparse"))
    assert small < 0.125 * dense


def test_the_same_network_makes_the_same_bytes(made: Made, saved: Path, tmp_path: Path) -> None:
    small = apply(made[0], made[2])
    for _ in range(12):  # metadata of two entries came in either order
        save(tmp_path, small, made[2])
        assert (tmp_path / WEIGHTS).read_bytes() == (saved / WEIGHTS).read_bytes()
    with safe_open(tmp_path / WEIGHTS, "pt") as file:
        (told,) = file.metadata().values()
    assert set(json.loads(told)) == {"fingerprint", "patterns"}


@pytest.mark.parametrize("text", ["leaves and flowers", "{}", '{"conv1.weight": {}}', ""])
def test_metadata_of_somebody_else_is_theirs(text: str, tmp_path: Path) -> None:
    tensors = {"conv1.weight": torch.ones(2, 3), "table::values": torch.zeros(4)}
    save_file(tensors, tmp_path / "theirs.safetensors", {"patterns": text, "format": "pt"})
    read = read_tensors(tmp_path / "theirs.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[n], t) for n, t in tensors.items())


def test_a_dense_network_may_have_any_names(tmp_path: Path) -> None:
    model = nn.Module()
    model.register_buffer("a::b", torch.ones(2))
    write_tensors(tmp_path / "w.safetensors", model)
    assert read_tensors(tmp_path / "w.safetensors").keys() == {"a::b"}


def test_channels_and_patterns_come_back_together(tmp_path: Path) -> None:
    model, x, plan = sparse_plan("residual", "4x1", 0.5, channels=True)
    small = apply(model, plan)
    save(tmp_path / "a", small, plan)
    save(tmp_path / "b", model, plan)  # the original is made smaller first: its size says that it is that
    for folder in "ab":
        assert torch.equal(bh.load(tmp_path / folder, lambda: Residual().eval())(x), small(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_numbers_keep_their_type(dtype: torch.dtype, made: Made, tmp_path: Path) -> None:
    model, _, plan = made
    small = apply(model, plan).to(dtype)
    save(tmp_path, small, plan)
    read = read_tensors(tmp_path / WEIGHTS)
    assert read["conv1.weight"].dtype == dtype
    assert torch.equal(read["conv1.weight"], small.conv1.weight)


def test_shared_weights_are_stored_once_under_the_name_that_has_the_pattern(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = nn.Embedding(7, 8), nn.Linear(8, 7, bias=False)
            self.out.weight = self.table.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.out(self.table(tokens))

    model, tokens = Tied(), torch.tensor([[1, 4, 2]])
    sparse = bh.sparsify(model, tokens, sparsity=0.5, pattern="1x1")
    save(tmp_path, sparse.network, sparse.plan)
    again = load(tmp_path, Tied)
    assert again.out.weight is again.table.weight
    assert torch.equal(again.out.weight, sparse.network.out.weight)


def test_a_network_that_was_trained_without_its_patterns_is_refused(made: Made, tmp_path: Path) -> None:
    model, _, plan = made
    small = apply(model, plan)
    save(tmp_path, small, plan)
    before = (tmp_path / WEIGHTS).read_bytes()
    with torch.no_grad():
        small.conv2.weight.add_(1e-3)
    with pytest.raises(StorageError, match=r"'conv2\.weight' does not have the structure.*HoldPatterns"):
        save(tmp_path, small, plan)
    with pytest.raises(StorageError, match="apply the plan first"):
        save(tmp_path, model, plan)  # the original, which is of the same size
    assert (tmp_path / WEIGHTS).read_bytes() == before


def test_a_weight_that_is_not_a_number_is_stored_but_none_hides_where_zeros_belong(
    made: Made, tmp_path: Path
) -> None:
    model, _, plan = made
    small = apply(model, plan)
    mask = plan.patterns["conv1.weight"].mask
    with torch.no_grad():
        small.conv1.weight[mask] = float("nan")
    save(tmp_path, small, plan)
    assert torch.equal(read_tensors(tmp_path / WEIGHTS)["conv1.weight"].isnan(), mask)
    with torch.no_grad():
        small.conv1.weight.fill_(float("nan"))
    with pytest.raises(StorageError, match=r"conv1\.weight"):
        save(tmp_path, small, plan)


def test_a_plan_of_another_network_is_refused(made: Made, tmp_path: Path) -> None:
    model, _, plan = made
    small = apply(model, plan)
    _, _, other = sparse_plan("residual", "4x1", 0.9)
    with pytest.raises(PlanError, match=r"made for another network|which this network does not have"):
        save(tmp_path, small, other)


TOLD = "billhook.tensors/1"
Change = Callable[[dict[str, Tensor], dict[str, Any]], Any]


def changed(path: Path, change: Change) -> None:
    """Rewrite a file with other entries or another description."""
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    entries, whole = load_file(path), json.loads(metadata[TOLD])
    told = change(entries, whole["patterns"])
    text = told if isinstance(told, str) else json.dumps(whole)
    save_file(entries, path, {TOLD: text})


def drop(name: str) -> Change:
    return lambda entries, _: [entries.pop(name), None][1]


def put(name: str, make: Callable[[dict[str, Tensor]], Tensor]) -> Change:
    def change(entries: dict[str, Tensor], _: dict[str, Any]) -> None:
        entries[name] = make(entries).clone()

    return change


def describe(**values: Any) -> Change:
    return lambda _, described: [described["conv1.weight"].update(values), None][1]


KEEP, VALUES = "conv1.weight::structure.keep", "conv1.weight::values"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop(KEEP), r"'conv1\.weight' cannot be read: parts \[\], expected \['keep'\]"),
        (drop(VALUES), "expected one type of floats"),
        (put("conv1.weight::more", lambda e: e[VALUES]), "'more'.*expected"),
        (put("conv1.weight::structure.more", lambda e: e[KEEP]), "'more'"),
        (put("conv9.weight::values", lambda e: e[VALUES]), r"'conv9\.weight' has no pattern"),
        (put("conv1.weight", lambda e: torch.zeros(16, 3, 3, 3)), r"'conv1\.weight' has two forms"),
        (put(VALUES, lambda e: e[VALUES][:-1]), r"cannot be read: numbers .*expected"),
        (put(VALUES, lambda e: e[VALUES].long()), "expected one type of floats"),
        (put(VALUES, lambda e: e[VALUES].to(torch.complex64)), "expected one type of floats"),
        (put(VALUES, lambda e: e[VALUES][None]), r"expected \{'values': 'float32"),
        (put(KEEP, lambda e: e[KEEP].float()), "expected bytes"),
        (put(KEEP, lambda e: e[KEEP][:-1]), "cannot be read"),
        (put(KEEP, lambda e: torch.cat([e[KEEP], e[KEEP]])), "cannot be read"),
        (put(KEEP, lambda e: torch.full_like(e[KEEP], 9)), "unknown coding"),
        (put(KEEP, lambda e: e[KEEP].flip(0)), "cannot be read"),
        (describe(pattern="nothing"), "unknown pattern 'nothing'"),
        (describe(pattern=7), "cannot be read"),
        (describe(options={"rows": 0}), "rows"),
        (describe(options={"teeth": 3}), "teeth"),
        (describe(options=None), "'pattern' or 'options' is missing"),
        (describe(shape=[2**31, 2**31]), "more weights than a file of this size can hold"),
        (describe(shape=[10**9, 1]), "more weights than a file of this size can hold"),
        (describe(shape=[16, -3, 3, 3]), r"shape \[16, -3, 3, 3\]"),
        (describe(shape=[16, 3, 3]), "cannot be read|another structure"),
        (describe(transposed="yes"), "cannot be read"),
        (describe(more=1), "unknown entries"),
        (lambda e, d: "[" * 100_000, "not valid JSON"),
        (lambda e, d: '{"patterns": ' + "9" * 5000 + "}", "not valid JSON"),
        (lambda e, d: "[]", "no table"),
        (lambda e, d: '{"patterns": []}', "no table of tensors"),
        (lambda e, d: '{"patterns": {"conv1.weight": 3}}', "no table of tensors"),
        (lambda e, d: d.pop("conv1.weight"), "no pattern"),
        (lambda e, d: d.update(ghost=d["conv1.weight"]), "'ghost' has no numbers"),
        (lambda e, d: '{"patterns": {}}', "has no pattern"),
        (lambda e, d: "{}", "has a pattern for 'conv1.weight'"),
    ],
)
def test_a_changed_file_is_refused_by_name(
    change: Change, message: str, made: Made, saved: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copy(saved / WEIGHTS, tmp_path))
    changed(path, change)
    with pytest.raises(StorageError, match=message) as caught:
        read_tensors(path, made[2].patterns)
    assert "weights.safetensors" in str(caught.value)


def test_a_network_is_not_loaded_from_a_changed_file(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "copy"))
    changed(folder / WEIGHTS, drop(KEEP))
    with pytest.raises(StorageError, match=r"'conv1\.weight' cannot be read"):
        load(folder, Plain)


def test_what_is_changed_at_random_is_read_or_refused(saved: Path, tmp_path: Path) -> None:
    whole, path, chance = (saved / WEIGHTS).read_bytes(), tmp_path / WEIGHTS, random.Random(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 3))):
            damaged[chance.randrange(len(damaged) // 4)] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            read_tensors(path)
        except StorageError:
            refused += 1
    assert refused > 20


def test_structures_of_another_plan_are_refused(made: Made, tmp_path: Path) -> None:
    model, _, plan = made
    _, _, other = sparse_plan("plain", "4x1", 0.5)
    few = Plan(plan.keep, plan.fingerprint, plan.inputs).with_patterns(
        {n: s for n, s in plan.patterns.items() if n != "conv2.weight"}
    )
    save(tmp_path, apply(model, plan), plan)
    for wanted, message in (
        (other, "has another structure than the plan demands"),
        (few, r"weights\.safetensors has a pattern for 'conv2\.weight', the plan has none"),
    ):
        wanted.save(tmp_path / "plan.json")
        with pytest.raises(StorageError, match=message):
            load(tmp_path, Plain)
    save(tmp_path, apply(model, few), few)
    plan.save(tmp_path / "plan.json")
    with pytest.raises(StorageError, match=r"the plan has a pattern for 'conv2\.weight', .* has none"):
        load(tmp_path, Plain)


def test_a_file_without_its_description_does_not_fit_the_network(made: Made, tmp_path: Path) -> None:
    model, _, plan = made
    save(tmp_path, apply(model, plan), plan)
    save_file(load_file(tmp_path / WEIGHTS), tmp_path / WEIGHTS)
    with pytest.raises(StorageError, match="has a pattern for"):
        load(tmp_path, Plain)
