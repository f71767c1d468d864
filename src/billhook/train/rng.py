"""Random generators: their state as tensors, so that it fits into a checkpoint without a pickle."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

_CPU = torch.device("cpu")


def derive_seed(*parts: int) -> int:
    """Return a seed that depends on all `parts` (seed, epoch, rank …)."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_rng(seed: int, device: torch.device = _CPU) -> None:
    """Seed Python, numpy, torch on the CPU and torch on `device`; other devices are left alone."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        with _on(device):
            _module(device).manual_seed(seed)


def rng_state(device: torch.device = _CPU) -> dict[str, Tensor]:
    """Return the state of the generators that `seed_rng` seeds."""
    version, python, gauss = random.getstate()
    assert version == 3
    _, keys, position, has_gauss, cached = np.random.get_state()
    state = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(python, dtype=torch.int64),
        "python_gauss": torch.tensor([float("nan") if gauss is None else gauss], dtype=torch.float64),
        "numpy": torch.tensor([*map(int, keys), int(position), int(has_gauss)], dtype=torch.int64),
        "numpy_gauss": torch.tensor([float(cached)], dtype=torch.float64),
    }
    if device.type != "cpu":
        state["device"] = _module(device).get_rng_state(device)
    return state


def set_rng_state(state: Mapping[str, Tensor], device: torch.device = _CPU) -> None:
    """Go back to a state that `rng_state` returned; a state from another kind of device is skipped."""
    gauss = float(state["python_gauss"])
    random.setstate((3, tuple(state["python"].tolist()), None if gauss != gauss else gauss))
    *keys, position, has_gauss = state["numpy"].tolist()
    np.random.set_state(
        ("MT19937", np.array(keys, np.uint32), position, has_gauss, float(state["numpy_gauss"]))
    )
    # A clone, because torch 2.13 reads a view of a larger tensor from the wrong place and can crash.
    torch.set_rng_state(state["torch"].cpu().clone())
    if device.type != "cpu" and "device" in state:
        _module(device).set_rng_state(state["device"].cpu().clone(), device)


@contextmanager
def preserved_rng(device: torch.device = _CPU) -> Iterator[None]:
    """Give the caller's random state back after the block."""
    state = rng_state(device)
    try:
        yield
    finally:
        set_rng_state(state, device)


def _module(device: torch.device) -> Any:
    return torch.get_device_module(device)


def _on(device: torch.device) -> Any:
    return _module(device).device(device)
