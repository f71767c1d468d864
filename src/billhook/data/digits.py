"""1,797 grey 8×8 images of digits that ship with scikit-learn: no download, for tests and examples."""

from __future__ import annotations

import torch
from torch import Tensor

from billhook.data._batches import Augment
from billhook.data._dataset import Dataset, tensor_dataset
from billhook.data._sources import DataOptions
from billhook.data._splits import hold_out
from billhook.errors import MissingExtraError
from billhook.registry import Info

INFO = Info(
    title="1,797 grey 8x8 digits, 10 classes; part of scikit-learn",
    source="UCI ML repository, Optical Recognition of Handwritten Digits (test part)",
    notes="has no test split of its own: a fixed 20 % of every class is set aside",
)


def load_digits(options: DataOptions) -> Dataset:
    """Return the digits: about 1,220 to train on, 216 for validation, 360 for the test."""
    try:
        from sklearn.datasets import load_digits as read  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise MissingExtraError("scikit-learn", "digits", "the data set 'digits'") from None
    raw = read()
    images = torch.from_numpy(raw.images * (255 / 16)).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(raw.target).long()
    rest, test = hold_out(labels, 0.2)

    def read_test() -> tuple[Tensor, Tensor]:
        return images[test], labels[test]

    return tensor_dataset(
        "digits",
        images[rest],
        labels[rest],
        read_test,
        classes=tuple(str(digit) for digit in range(10)),
        mean=(0.3053,),
        std=(0.3760,),
        augmentation=Augment(),  # a mirrored digit is another digit, and 8 pixels leave no room to shift
        held_out=0.15,
    )


ENTRY = load_digits
