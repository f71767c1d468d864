from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from billhook.errors import InputError, StorageError
from billhook.train.checkpoint import (
    FILE,
    Cadence,
    load_checkpoint,
    require_free,
    require_same_run,
    save_checkpoint,
)

STATE = {"step": 3, "model": {"w": torch.randn(40, 50), "n": torch.tensor(7)}}


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let every write behind `size` bytes of a file fail."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path / "new/folder", STATE)
    back = load_checkpoint(tmp_path / "new/folder")
    assert back is not None
    assert back["step"] == 3
    assert torch.equal(back["model"]["w"], STATE["model"]["w"])
    assert [p.name for p in (tmp_path / "new/folder").iterdir()] == [FILE]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, STATE)
    with full_disk(1000), pytest.raises(StorageError, match="cannot be written") as caught:
        save_checkpoint(tmp_path, {**STATE, "step": 4})
    assert "the checkpoint before this one is kept" in str(caught.value)
    assert str(tmp_path / FILE) in str(caught.value)
    assert load_checkpoint(tmp_path)["step"] == 3
    assert [p.name for p in tmp_path.iterdir()] == [FILE]


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        save_checkpoint(tmp_path / "file" / "below", STATE)


@pytest.mark.parametrize("damage", ["truncated", "header", "flipped", "empty", "text"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, STATE)
    path = tmp_path / FILE
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-100] ^= 1
    path.write_bytes(
        {
            "truncated": content[: len(content) // 2],
            "header": content[:20],
            "flipped": content,
            "empty": b"",
            "text": b"hello " * 100,
        }[damage]
    )
    with pytest.raises(StorageError, match="delete it to start from the beginning") as caught:
        load_checkpoint(tmp_path)
    assert str(path) in str(caught.value)


def test_another_safetensors_file_is_no_checkpoint(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / FILE)
    with pytest.raises(StorageError, match=r"expected format 'billhook\.checkpoint/1', found None"):
        load_checkpoint(tmp_path)


def test_an_old_run_is_not_overwritten(tmp_path: Path) -> None:
    require_free(tmp_path)
    save_checkpoint(tmp_path, STATE)
    with pytest.raises(InputError, match="resume=True or choose another directory"):
        require_free(tmp_path)


def test_every_difference_between_two_runs_is_named(tmp_path: Path) -> None:
    require_same_run(tmp_path, {"lr": 0.1}, {"lr": 0.1})
    with pytest.raises(
        InputError, match=r"ema was None and is now 0\.9; lr was 0\.1 and is now 0\.2"
    ) as caught:
        require_same_run(tmp_path, {"lr": 0.1, "seed": 0}, {"lr": 0.2, "seed": 0, "ema": 0.9})
    assert "seed" not in str(caught.value)


def test_checkpoints_are_due_by_steps_or_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("billhook.train.checkpoint.time.monotonic", lambda: now[0])
    by_step, by_time, never = Cadence(3, None), Cadence(None, 10.0), Cadence(None, None)
    assert [by_step.due(s) for s in range(1, 7)] == [False, False, True, False, False, True]
    assert not by_time.due(1)
    now[0] += 11
    assert by_time.due(2)
    by_time.done()
    assert not by_time.due(3)
    assert not never.due(1000)
