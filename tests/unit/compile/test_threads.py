"""Threads and batches change no bit of what a whole network computes, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from billhook.compile.compiler import compile_model
from billhook.compile.library import isas
from billhook.compile.session import EngineSession
from billhook.models import build
from tests.unit.compile.exactness import image
from tests.unit.compile.lower.test_whole_networks import ZOO, settled

pytestmark = pytest.mark.usefixtures("engine")
BATCH = 8


@pytest.mark.parametrize("name", ZOO)
def test_threads_and_batches_change_no_bit(name: str) -> None:
    torch.manual_seed(0)
    channels, side = (1, 28) if name == "lenet-5" else (3, 32)
    file = compile_model(settled(build(name, **ZOO[name])), image(channels, side, side), check=False).file
    x = image(channels, side, side, batch=BATCH).numpy()
    for isa in isas():
        with EngineSession(file, 1, isa) as session:
            alone = np.concatenate([session.run([x[i : i + 1]])[0] for i in range(BATCH)])
        for threads in (1, 2, 4):
            with EngineSession(file, threads, isa) as session:
                assert np.array_equal(session.run([x])[0], alone), f"{isa}, {threads} threads"
                assert np.array_equal(session.run([x[:1]])[0], alone[:1]), f"{isa}, {threads} threads"
