from __future__ import annotations

import numpy as np

from billhook.allocate.families.uniform import Uniform


def test_every_group_gets_the_same_fraction_whatever_its_scores() -> None:
    wanted = Uniform().wanted([np.zeros(10), np.arange(4.0)], np.array([0.0, 0.5, 1.0]))
    assert wanted.tolist() == [[0, 0], [5, 2], [10, 4]]
