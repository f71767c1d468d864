from __future__ import annotations

import getpass
import json
import platform

from billhook.measure import environment
from billhook.measure.environment import quiet_cores, usable_cores, versions


def test_the_environment_is_plain_data_without_names_of_hosts_people_or_folders() -> None:
    found = environment()
    text = json.dumps(found)
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["versions"]["torch"]
    for secret in (platform.node(), f'"{getpass.getuser()}', "/home", "/root"):
        assert secret not in text


def test_libraries_that_are_not_installed_are_left_out() -> None:
    assert list(versions(("numpy", "no-such-library"))) == ["numpy"]


def test_quiet_cores_are_usable_ones() -> None:
    usable = usable_cores()
    for count in (1, len(usable), len(usable) + 5):
        cores = quiet_cores(count, watch_seconds=0.01)
        assert set(cores) <= set(usable)
        assert len(cores) == min(count, len(usable))
