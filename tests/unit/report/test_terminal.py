from __future__ import annotations

import pytest

from billhook.errors import InputError
from billhook.report import terminal_report
from billhook.results import Check
from billhook.run_record import Sparsity
from tests.unit.report.fabricated import golden, hostile_run, one_run, replace_results, several_runs, text_of


def test_one_run_in_full() -> None:
    assert text_of(terminal_report([one_run()])) == golden("terminal_one.txt")


def test_a_narrow_terminal_still_shows_every_figure() -> None:
    assert text_of(terminal_report([one_run()]), width=80) == golden("terminal_narrow.txt")


def test_several_runs_as_a_table() -> None:
    assert text_of(terminal_report(several_runs())) == golden("terminal_several.txt")


def test_a_run_that_failed_and_one_that_does_not_agree_say_so() -> None:
    check = Check(False, False, 1.0, 0.5, 1e-4, "stages.1.conv")
    run = replace_results(
        one_run(), status="failed", check=check, rows=(), budget_met=(), notes=("disk full",)
    )
    assert text_of(terminal_report([run])) == golden("terminal_failed.txt")


def test_names_are_shown_as_they_are_and_command_nothing() -> None:
    run = replace_results(hostile_run(), name="[red]x[/red]\x1b[2J", notes=("[bold]y",))
    text = text_of(terminal_report([run]))
    assert text.startswith("[red]x[/red]\\x1b[2J")
    assert "Note: [bold]y" in text
    assert "\x1b" not in text_of(terminal_report([run, run]))


def test_no_run_is_the_callers_mistake() -> None:
    with pytest.raises(InputError, match="at least one run"):
        terminal_report([])


def test_zeros_are_a_line_of_their_own() -> None:
    shown = text_of(terminal_report([replace_results(one_run(), sparsity=Sparsity(2, 100, 10, 10, True))]))
    assert "Zeros: 90.0 % of 100 weights in 2 tensors are zero; fine-tuning kept every pattern" in shown
