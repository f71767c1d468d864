from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from billhook.errors import StorageError
from billhook.models import Checkpoint, build, checkpoint, save_checkpoint
from billhook.models._checkpoints import FOLDER
from billhook.results import Measurement

SHIPPED = sorted(FOLDER.glob("*.json"))


def save(folder: Path) -> Checkpoint:
    torch.manual_seed(0)
    arguments = {"width": 2, "in_channels": 1}
    return save_checkpoint(
        build("resnet-8", **arguments),
        "resnet-8",
        arguments,
        "fashion-mnist",
        validation_accuracy=Measurement(0.5, "1", conditions={"split": "validation"}),
        made_by={"seed": 0},
        folder=folder,
    )


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = save(tmp_path)

    found = checkpoint("resnet-8", "fashion-mnist", folder=tmp_path)

    assert found == saved
    assert found.validation_accuracy.value == 0.5
    torch.manual_seed(0)
    original, loaded = build("resnet-8", width=2, in_channels=1), found.load()
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor, original.state_dict()[name], atol=1e-3, rtol=1e-3)
        assert tensor.dtype == original.state_dict()[name].dtype


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert checkpoint("resnet-8", "cifar10", folder=tmp_path) is None


def test_names_with_underscores_find_the_same(tmp_path: Path) -> None:
    save(tmp_path)

    assert checkpoint("resnet_8", "fashion_mnist", folder=tmp_path) is not None


def test_a_damaged_pair_is_named(tmp_path: Path) -> None:
    made = save(tmp_path)
    made.path.write_bytes(made.path.read_bytes()[:-1])
    with pytest.raises(StorageError, match=r"safetensors is missing or damaged"):
        made.load()

    made.path.with_suffix(".json").write_text("{}")
    with pytest.raises(StorageError, match=r"json is damaged"):
        checkpoint("resnet-8", "fashion-mnist", folder=tmp_path)


@pytest.mark.parametrize("record", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_shipped_checkpoints_load_and_say_how_they_were_made(record: Path) -> None:
    model, dataset = record.stem.split("_")

    found = checkpoint(model, dataset)

    assert found is not None
    assert found.path.stat().st_size <= 2_000_000
    assert found.validation_accuracy.conditions["split"] == "validation"
    assert {"script", "seed", "batch_size", "config", "log", "torch"} <= json.loads(record.read_text())[
        "made_by"
    ].keys()
    assert all(p.isfinite().all() for p in found.load().parameters())
