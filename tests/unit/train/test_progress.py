from __future__ import annotations

import io

import pytest
from rich.console import Console

from billhook.train.progress import Reporter
from billhook.train.result import EpochRecord


def test_the_bar_shows_loss_rate_throughput_and_steps() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Reporter(10, 3, 2, enabled=True, console=console) as reporter:
        for _ in range(2):
            reporter.step(64)
        reporter.figures(1.25, 0.05)
    text = console.file.getvalue()
    assert "5/10" in text
    assert "loss 1.2500" in text
    assert "lr 5.00e-02" in text
    assert "samples/s" in text


def test_without_a_terminal_or_when_off_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    for enabled in (True, False):
        with Reporter(10, 0, 2, enabled=enabled) as reporter:
            reporter.step(64)
            reporter.figures(1.25, 0.05)
            reporter.epoch(EpochRecord(0, 5, 1.0, 0.1, 2.0))
    assert capsys.readouterr() == ("", "")
