"""What holds for every backend."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook.deploy import export
from billhook.errors import MissingExtraError, StorageError
from billhook.measure import Artifact, LatencyRig, Timing, backends, profile
from tests.networks import build
from tests.unit.deploy.toy_networks import Answers, Attention, FixedBatch, Keywords, convolutions

HEAVY = ("torch", "typer", "pydantic", "scipy", "rich")

every_backend = pytest.mark.parametrize("name", backends.names())


@pytest.fixture(autouse=True)
def available(request: pytest.FixtureRequest) -> None:
    """Skip what needs billhook's own engine where that is not built."""
    if "billhook" in request.node.name:
        request.getfixturevalue("engine")


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifact]:
    """One linear layer, exported once for each backend; nobody changes it."""
    folder, model, x = tmp_path_factory.mktemp("linear"), nn.Linear(4, 4), torch.randn(2, 4)
    return cache(lambda name: export(model, x, folder / name, backend=name, purpose="timing"))


def _array(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@every_backend
@pytest.mark.parametrize("network", ["depthwise_squeeze", "residual", "shuffle"])
def test_it_computes_what_pytorch_computes(name: str, network: str, tmp_path: Path) -> None:
    model, inputs = build(network)
    artifact = export(model, inputs, tmp_path / "net", backend=name)  # compares
    assert artifact.manifest.parity is not None
    assert artifact.manifest.backend == name
    assert artifact.manifest.versions[name]
    assert Artifact.load(artifact.directory).manifest == artifact.manifest
    folder = {p.name for p in artifact.directory.iterdir()}
    assert folder == {"manifest.json", *(f.name for f in artifact.manifest.files)}


@every_backend
def test_tokens_are_taken_as_whole_numbers(name: str, tmp_path: Path) -> None:
    artifact = export(Attention().eval(), torch.randint(20, (2, 6)), tmp_path / "net", backend=name)
    assert artifact.manifest.inputs[0].dtype == "int64"
    (output,) = backends.get(name).open(artifact).run(artifact.random_inputs(3))
    assert output.shape == (3, 4)


@every_backend
def test_tensors_are_taken_and_given_in_the_manifest_s_order(name: str, tmp_path: Path) -> None:
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    artifact = export(Keywords(), {"b": b, "a": a}, tmp_path / "net", backend=name)
    for threads in (1, 2):
        (output,) = backends.get(name).open(artifact, threads).run([a.numpy(), b.numpy()])
        np.testing.assert_allclose(output, a - b, rtol=1e-6)


@every_backend
def test_every_output_is_given_with_its_type(name: str, tmp_path: Path) -> None:
    def answer(y: Tensor, x: Tensor) -> dict[str, Tensor]:
        return {"z": y, "same": y, "input": x, "positive": y > 0, "best": y.argmax(1), "sum": y.sum()}

    model = Answers(answer).eval()
    artifact = export(model, torch.randn(2, 4), tmp_path / "net", backend=name)
    x = _array(3, 4)
    found = backends.get(name).open(artifact).run([x])
    with torch.no_grad():
        expected = list(model(torch.from_numpy(x)).values())
    assert len(found) == len(expected)
    for spec, f, e in zip(artifact.manifest.outputs, found, expected, strict=True):
        assert f.dtype == spec.dtype
        np.testing.assert_allclose(f, e.numpy(), rtol=1e-5, atol=1e-6)


@every_backend
def test_a_run_changes_neither_its_inputs_nor_earlier_outputs(name: str, tmp_path: Path) -> None:
    artifact = export(
        Answers(lambda y, x: (x.relu() - 1, x, y)).eval(), torch.randn(2, 4), tmp_path / "net", backend=name
    )
    session = backends.get(name).open(artifact)
    x = _array(2, 4)
    before = x.copy()
    outputs = session.run([x])
    kept = [output.copy() for output in outputs]
    session.run([x + 1])
    np.testing.assert_array_equal(x, before)
    for output, copy in zip(outputs, kept, strict=True):
        np.testing.assert_array_equal(output, copy)


@every_backend
def test_inputs_may_be_read_only_or_have_gaps(name: str, linear: Callable[[str], Artifact]) -> None:
    session = backends.get(name).open(linear(name))
    x = _array(2, 4)
    (expected,) = session.run([x])
    fixed = x.copy()
    fixed.setflags(write=False)
    for same in (fixed, np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(session.run([same])[0], expected)


@every_backend
def test_the_batch_size_is_open_unless_only_timed_or_fixed_by_the_code(name: str, tmp_path: Path) -> None:
    backend, model, x = backends.get(name), convolutions().eval(), torch.randn(2, 3, 8, 8)
    shipped = backend.open(export(model, x, tmp_path / "shipped", backend=name))
    for batch in (1, 2, 5, 3):
        assert shipped.run([_array(batch, 3, 8, 8)])[0].shape == (batch, 5)
    timed = backend.open(export(model, x, tmp_path / "timed", backend=name, purpose="timing"))
    assert timed.run([_array(2, 3, 8, 8)])[0].shape == (2, 5)
    with pytest.raises(Exception, match=r"shape|dimension"):
        timed.run([_array(3, 3, 8, 8)])
    fixed = export(FixedBatch(), torch.randn(2, 4), tmp_path / "fixed", backend=name)
    assert not fixed.manifest.dynamic_batch
    assert fixed.manifest.notes


@every_backend
@pytest.mark.parametrize("wrong", [[_array(2, 5)], [_array(2, 4).astype(np.float64)], [], [_array(2, 4)] * 2])
def test_wrong_inputs_are_not_guessed_at(
    name: str, wrong: list[np.ndarray], linear: Callable[[str], Artifact]
) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 (the runtimes' own)
        backends.get(name).open(linear(name)).run(wrong)


@every_backend
@pytest.mark.parametrize("damage", ["text", "empty", "truncated"])
def test_a_damaged_file_is_refused_by_name(
    name: str, damage: str, linear: Callable[[str], Artifact], tmp_path: Path
) -> None:
    artifact = Artifact(shutil.copytree(linear(name).directory, tmp_path / "net"), linear(name).manifest)
    whole = artifact.model_path.read_bytes()
    damaged = {"text": b"not a network", "empty": b"", "truncated": whole[: len(whole) // 2]}[damage]
    artifact.model_path.write_bytes(damaged)
    with pytest.raises(StorageError, match=rf"{artifact.manifest.model}: .* refuses it: ."):
        backends.get(name).open(artifact)


@pytest.mark.parametrize("name", [n for n in backends.names() if backends.get(n).extra])
def test_without_the_library_the_extra_is_named(
    name: str, linear: Callable[[str], Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, artifact = backends.get(name), linear(name)
    monkeypatch.setitem(sys.modules, backend.library, None)
    with pytest.raises(MissingExtraError, match=rf"billhook\[{backend.extra}\]"):
        backend.open(artifact)
    with pytest.raises(MissingExtraError, match=backend.library):
        backend.prepare()
    with pytest.raises(MissingExtraError):
        export(nn.Linear(4, 4), torch.randn(2, 4), tmp_path / "other", backend=name)
    assert not (tmp_path / "other").exists()


@every_backend
def test_the_timing_process_needs_neither_torch_nor_the_command_line(name: str) -> None:
    code = (
        f"import sys, billhook.measure.worker, billhook.deploy.backends.{name}_ as b; b.ENTRY.prepare();"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_are_timed_in_turns_and_say_what_was_timed(linear: Callable[[str], Artifact]) -> None:
    made = [linear(name) for name in backends.names()]
    quick = Timing(rounds=2, seconds_per_round=0.02, warmup=0.0, batch=None)
    with LatencyRig(made[0], quick) as rig:
        assert all(rig.relative_latency(a).ratio > 0 for a in made[1:])
    for artifact, found in zip(made, profile(made, quick), strict=True):
        conditions = found.latency.conditions
        library = backends.get(artifact.manifest.backend).library
        assert conditions["runtime"].startswith(f"{artifact.manifest.backend} ")
        assert conditions["precision"].startswith("float32")
        assert conditions["machine"]["versions"][library]
