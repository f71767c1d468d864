"""A policy comes back as it was; files that are none, or another one's, are refused and change nothing."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from billhook.errors import StorageError
from billhook.search.encoder.decoder import DecoderPolicy
from billhook.search.encoder.policy_file import load_policy, save_policy

MADE = {"encoder": "plain", "agent": "ddpg"}


def policy() -> nn.ModuleDict:
    return nn.ModuleDict({"policy": DecoderPolicy("plain")})


def saved(folder: Path) -> tuple[Path, nn.ModuleDict]:
    path, kept = folder / "policy.safetensors", policy()
    save_policy(path, kept, MADE)
    return path, kept


def refused(path: Path, match: str, made: dict[str, str] | None = None) -> None:
    fresh = policy()
    before = {n: t.clone() for n, t in fresh.state_dict().items()}
    with pytest.raises(StorageError, match=match):
        load_policy(path, fresh, made or MADE)
    assert all(torch.equal(t, before[n]) for n, t in fresh.state_dict().items())


def rewritten(path: Path, change: dict[str, torch.Tensor]) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({**load_file(path), **change}, path, metadata)


def test_a_policy_comes_back(tmp_path: Path) -> None:
    path, kept = saved(tmp_path)
    fresh = policy()
    load_policy(path, fresh, MADE)
    assert all(torch.equal(t, kept.state_dict()[n]) for n, t in fresh.state_dict().items())


def test_another_agents_policy_is_refused(tmp_path: Path) -> None:
    refused(saved(tmp_path)[0], "was trained with agent='ddpg'", {**MADE, "agent": "ppo"})


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.safetensors", "missing")


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path, ran = tmp_path / "policy.safetensors", tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> object:
            return (Path.touch, (ran,))

    path.write_bytes(pickle.dumps(Hostile()))
    refused(path, "not a safetensors file")
    assert not ran.exists()


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, "truncated")


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    refused(path, "not a policy that billhook has saved")


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (torch.zeros(3, 3), "does not fit"),
        (torch.zeros(30, dtype=torch.float64), "F64"),
        (torch.full((30,), torch.nan), "no numbers"),
    ],
)
def test_wrong_shapes_types_and_values_are_refused(value: torch.Tensor, match: str, tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    rewritten(path, {"policy.encoder.head.bias": value})
    refused(path, match)


def test_a_tensor_too_many_is_refused(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    rewritten(path, {"extra": torch.zeros(1)})
    refused(path, "extra")
