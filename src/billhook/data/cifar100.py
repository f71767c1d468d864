"""CIFAR-100 (fine labels) from a folder `cifar-100-python`."""

from __future__ import annotations

from functools import partial

from billhook.data._cifar import CifarLayout, load_cifar
from billhook.registry import Info

INFO = Info(
    title="50,000 + 10,000 colour 32x32 images, 100 classes; from a folder",
    source="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    notes="not fetched: unpack cifar-100-python.tar.gz; 5,000 are held out for validation",
)
ENTRY = partial(
    load_cifar,
    CifarLayout(
        name="cifar100",
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        train=("train",),
        test="test",
        labels="fine_labels",
        meta=("meta", "fine_label_names"),
        classes=100,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
    ),
)
