from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import billhook
from billhook.errors import InputError, StorageError
from billhook.models import build, load_weights


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("resnet-8", width=2)


def weights(seed: int = 1) -> dict[str, Tensor]:
    return dict(network(seed).state_dict())


def same(model: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(tensor.equal(state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".ckpt"])
def test_weights_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    save_file(weights(), path) if suffix == ".safetensors" else torch.save(weights(), path)
    model = network()

    load_weights(model, path)

    assert same(model, weights())


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_of_training_scripts_are_understood(tmp_path: Path, key: str, prefix: str) -> None:
    state = {prefix + name: tensor for name, tensor in weights().items()}
    torch.save({key: state, "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "last.pth")
    model = network()

    load_weights(model, tmp_path / "last.pth")

    assert same(model, weights())


def test_half_precision_becomes_the_precision_of_the_model(tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in weights().items() if "num_batches" not in name}
    save_file(half, tmp_path / "half.safetensors")
    model = network()

    load_weights(model, tmp_path / "half.safetensors")

    assert all(p.dtype == torch.float32 for p in model.parameters())
    torch.testing.assert_close(
        model.get_parameter("conv.weight"), weights()["conv.weight"], atol=1e-3, rtol=1e-3
    )


def test_tensors_that_do_not_fit_are_listed_by_kind(tmp_path: Path) -> None:
    state = weights()
    del state["conv.weight"], state["bn.bias"]
    state["extra"] = torch.zeros(1)
    state["classifier.weight"] = torch.zeros(100, 8)
    save_file(state, tmp_path / "other.safetensors")
    model = network()

    with pytest.raises(InputError) as caught:
        load_weights(model, tmp_path / "other.safetensors")

    message = str(caught.value)
    assert "missing: conv.weight, bn.bias" in message
    assert "unexpected: extra" in message
    assert "classifier.weight (file 100×8, model 10×8)" in message
    assert same(model, dict(network().state_dict()))  # nothing has been copied


def test_long_lists_are_cut(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")

    with pytest.raises(InputError, match=r"missing: (\S+, ){4}\S+ and \d+ more"):
        load_weights(network(), tmp_path / "other.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"weights{suffix}"
    save_file(weights(), path) if suffix == ".safetensors" else torch.save(weights(), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    with pytest.raises(StorageError, match=f"weights{suffix} is (truncated or )?damaged"):
        load_weights(network(), path)


class Attack:
    """An object whose pickle runs a command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"conv.weight": Attack(tmp_path / "run")}, tmp_path / "evil.pth")

    with pytest.raises(StorageError, match=r"never loaded.*state_dict"):
        load_weights(network(), tmp_path / "evil.pth")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [[1, 2], {"a": 3}, {}, {1: torch.zeros(1)}])
def test_something_else_than_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "odd.pth")

    with pytest.raises(StorageError, match=r"odd\.pth holds .*model\.state_dict"):
        load_weights(network(), tmp_path / "odd.pth")


def test_other_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.h5").touch()
    with pytest.raises(InputError, match="unknown kind"):
        load_weights(network(), tmp_path / "weights.h5")
    with pytest.raises(InputError, match="there is no file"):
        load_weights(network(), tmp_path / "nothing.pth")


@pytest.mark.parametrize("pattern", ["4x1|dense", "unified:2x2|dense", "unstructured"])
def test_a_file_of_a_sparse_network_is_named_as_what_it_is(tmp_path: Path, pattern: str) -> None:
    x = torch.randn(1, 3, 8, 8)
    sparse = billhook.sparsify(network(), x, sparsity=0.5, pattern=pattern)
    billhook.save(tmp_path, sparse.network, sparse.plan)
    model = network(3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    with pytest.raises(
        InputError, match=r"weights\.safetensors was written by billhook\.save.*billhook\.load"
    ):
        load_weights(model, tmp_path / "weights.safetensors")

    assert same(model, before)
