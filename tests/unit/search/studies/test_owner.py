from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import psutil

from billhook.search.studies.owner import Owner


def test_this_process_lives() -> None:
    owner = Owner.new()
    assert not owner.dead
    assert Owner.of(owner.to_dict()) == owner
    assert Owner.new().token != owner.token


def test_a_process_that_has_ended_is_dead_even_before_it_is_reaped() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        owner = replace(Owner.new(), pid=process.pid, started=psutil.Process(process.pid).create_time())
        assert not owner.dead
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            pass
        assert owner.dead
    assert owner.dead


def test_another_process_with_the_same_number_is_another_one() -> None:
    owner = Owner.new()
    assert replace(owner, started=owner.started - 60).dead


def test_nothing_is_known_of_other_machines() -> None:
    assert not replace(Owner.new(), host="elsewhere", pid=2**22 - 1).dead


def test_what_is_no_owner_is_none() -> None:
    assert Owner.of(None) is None
    assert Owner.of({"host": "here", "pid": "many"}) is None
