"""CIFAR-10 from a folder `cifar-10-batches-py`."""

from __future__ import annotations

from functools import partial

from billhook.data._cifar import CifarLayout, load_cifar
from billhook.registry import Info

INFO = Info(
    title="50,000 + 10,000 colour 32x32 images, 10 classes; from a folder",
    source="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    notes="not fetched: unpack cifar-10-python.tar.gz; 5,000 are held out for validation",
)
ENTRY = partial(
    load_cifar,
    CifarLayout(
        name="cifar10",
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        train=tuple(f"data_batch_{number}" for number in range(1, 6)),
        test="test_batch",
        labels="labels",
        meta=("batches.meta", "label_names"),
        classes=10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
)
