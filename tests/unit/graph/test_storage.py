"""Saved networks: a plan and its tensors; whole or not at all; never a pickle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from billhook.errors import PlanError, StorageError
from billhook.graph import ExportedNetwork, Plan, apply, capture, load, save
from tests.arch.source import ROOT
from tests.networks import Residual, build
from tests.oracle import random_plan, randomize


@pytest.fixture
def made() -> tuple[nn.Module, Tensor, Plan]:
    model, x = build("residual")
    return model, x, random_plan(capture(model, x))


def test_the_smaller_network_comes_back(made: tuple[nn.Module, Tensor, Plan], tmp_path: Path) -> None:
    model, x, plan = made
    small = apply(model, plan)
    save(tmp_path / "new" / "run", small, plan)
    assert sorted(p.name for p in (tmp_path / "new" / "run").iterdir()) == [
        "plan.json",
        "weights.safetensors",
    ]
    again = load(tmp_path / "new" / "run", lambda: Residual().eval())
    assert type(again) is Residual
    assert torch.equal(again(x), small(x))


def test_trained_weights_come_back(made: tuple[nn.Module, Tensor, Plan], tmp_path: Path) -> None:
    model, x, plan = made
    small = apply(model, plan).train()
    optimizer = torch.optim.SGD(small.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        small(x).square().mean().backward()
        optimizer.step()
    save(tmp_path, small, plan)
    again = load(tmp_path, Residual)
    assert again.training
    assert torch.equal(again.eval()(x), small.eval()(x))
    assert torch.equal(again.bn.running_mean, small.bn.running_mean)


def test_the_original_may_be_saved_and_is_made_smaller(
    made: tuple[nn.Module, Tensor, Plan], tmp_path: Path
) -> None:
    model, x, plan = made
    save(tmp_path, model, plan)
    assert torch.equal(load(tmp_path, lambda: Residual().eval())(x), apply(model, plan)(x))
    assert load_file(tmp_path / "weights.safetensors")["inner1.weight"].shape == (12, 8, 3, 3)
    assert model.inner1.weight.shape == (24, 16, 3, 3)


def test_a_plan_read_from_a_file_will_do(made: tuple[nn.Module, Tensor, Plan], tmp_path: Path) -> None:
    model, x, plan = made
    plan.save(tmp_path / "mine.json")
    read = Plan.load(tmp_path / "mine.json")
    save(tmp_path / "a", model, read)
    save(tmp_path / "b", apply(model, read), read)
    first, second = (load(tmp_path / n, lambda: Residual().eval()) for n in "ab")
    assert torch.equal(first(x), second(x))


def test_another_process_loads_it(made: tuple[nn.Module, Tensor, Plan], tmp_path: Path) -> None:
    model, x, plan = made
    save(tmp_path, model, plan)
    program = (
        "import sys, torch\n"
        "from billhook.graph import load\n"
        "from tests.networks import Residual, build\n"
        "model = load(sys.argv[1], lambda: Residual().eval())\n"
        "print(model(build('residual')[1]).sum().item(), sum(p.numel() for p in model.parameters()))"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], env=environment, capture_output=True, text=True, check=True
    )
    total, parameters = done.stdout.split()
    small = apply(model, plan)
    assert float(total) == pytest.approx(small(x).sum().item(), rel=1e-5)
    assert int(parameters) == sum(p.numel() for p in small.parameters())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.inner, self.out = nn.Embedding(7, 8), nn.Linear(8, 8), nn.Linear(8, 7, bias=False)
        self.out.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.inner(self.table(tokens)).relu())


def test_shared_tensors_are_stored_once_and_stay_shared(tmp_path: Path) -> None:
    model, tokens = randomize(Tied()).eval(), torch.tensor([[1, 4, 2]])
    plan = random_plan(capture(model, tokens))
    save(tmp_path, model, plan)
    assert set(load_file(tmp_path / "weights.safetensors")) == {"table.weight", "inner.weight", "inner.bias"}
    again = load(tmp_path, lambda: Tied().eval())
    assert again.out.weight is again.table.weight
    assert torch.equal(again(tokens), apply(model, plan)(tokens))


class Fixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 12), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return self.two(x[:, :8] * x[:, 4:])


def test_an_exported_network_comes_back(tmp_path: Path) -> None:
    model, x = randomize(Fixed()), torch.randn(2, 6)
    plan = random_plan(capture(model, x))
    small = apply(model, plan)
    assert isinstance(small, ExportedNetwork)
    save(tmp_path, small, plan)
    again = load(tmp_path, Fixed)
    assert isinstance(again, ExportedNetwork)
    assert torch.equal(again(x), small(x))


def test_half_precision_comes_back(tmp_path: Path) -> None:
    model, x = build("plain")
    model, x = model.bfloat16(), x.bfloat16()
    plan = random_plan(capture(model, x))
    save(tmp_path, model, plan)
    again = load(tmp_path, lambda: build("plain", seed=1)[0].bfloat16())
    assert torch.equal(again(x), apply(model, plan)(x))


def test_missing_files_are_named(made: tuple[nn.Module, Tensor, Plan], tmp_path: Path) -> None:
    model, _, plan = made
    with pytest.raises(
        StorageError, match=r"plan\.json is missing; give a directory written by billhook\.save"
    ):
        load(tmp_path / "nowhere", Residual)
    save(tmp_path, model, plan)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(StorageError, match=r"weights\.safetensors is missing"):
        load(tmp_path, Residual)


@pytest.mark.parametrize("left", [0, 4, 100, -1])
def test_truncated_tensors_are_named(left: int, made: tuple[nn.Module, Tensor, Plan], tmp_path: Path) -> None:
    model, _, plan = made
    save(tmp_path, model, plan)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(StorageError, match=r"weights\.safetensors is truncated or not a safetensors file"):
        load(tmp_path, Residual)


def test_a_corrupted_plan_is_named(made: tuple[nn.Module, Tensor, Plan], tmp_path: Path) -> None:
    model, _, plan = made
    save(tmp_path, model, plan)
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(PlanError, match=r"plan\.json: not a billhook plan"):
        load(tmp_path, Residual)


def test_another_network_is_refused(made: tuple[nn.Module, Tensor, Plan], tmp_path: Path) -> None:
    model, _, plan = made
    save(tmp_path, model, plan)
    with pytest.raises(PlanError, match="made for another network"):
        load(tmp_path, lambda: build("concat")[0])
    with pytest.raises(PlanError):
        save(tmp_path / "other", build("concat")[0], plan)


def test_tensors_of_another_run_are_refused(made: tuple[nn.Module, Tensor, Plan], tmp_path: Path) -> None:
    model, x, plan = made
    save(tmp_path / "a", model, plan)
    save(tmp_path / "b", model, random_plan(capture(model, x), share=0.25))
    os.replace(tmp_path / "b" / "weights.safetensors", tmp_path / "a" / "weights.safetensors")
    with pytest.raises(StorageError, match=r"does not fit the network: .*has shape .*the network needs"):
        load(tmp_path / "a", Residual)


def test_nothing_appears_where_nothing_can_be_written(
    made: tuple[nn.Module, Tensor, Plan], tmp_path: Path
) -> None:
    model, _, plan = made
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write the network to"):
        save(tmp_path / "file", model, plan)


def test_a_failed_save_leaves_the_old_files(
    made: tuple[nn.Module, Tensor, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, plan = made
    save(tmp_path, model, plan)
    before = load(tmp_path, lambda: Residual().eval())(x)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("billhook.graph.storage.save_file", full)
    with pytest.raises(StorageError, match="No space left on device"):
        save(tmp_path, build("residual", seed=4)[0], plan)
    assert torch.equal(load(tmp_path, lambda: Residual().eval())(x), before)
