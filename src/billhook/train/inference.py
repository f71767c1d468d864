"""Forward passes without gradients: device, layout, mode and arithmetic, all put back afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from billhook.graph.inputs import as_call
from billhook.train.placement import as_channels_last, channels_last, device_of, mode_kept, placed, to_device
from billhook.train.precision import DTYPES, resolve_precision


@contextmanager
def forward_only(
    model: nn.Module, precision: str, device: torch.device | str | None = None
) -> Iterator[Callable[[Any], Any]]:
    """Give a function from inputs to outputs; the model is in eval mode inside the block.

    Raises:
        InputError: if the precision is unknown or cannot be had on the device.
    """
    place = device_of(model) if device is None else torch.device(device)
    precision = resolve_precision(precision, place.type)
    dtype = DTYPES.get(precision)
    with mode_kept(model), placed(model, place), channels_last(model), torch.no_grad():
        model.eval()

        def call(inputs: Any) -> Any:
            args, kwargs = as_call(as_channels_last(to_device(inputs, place)))
            with torch.autocast(place.type, dtype=dtype, enabled=dtype is not None):
                return model(*args, **kwargs)

        yield call
