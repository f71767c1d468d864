"""Networks by name, or from the user's own code: `build("resnet-20", in_channels=1)`.

    names, build, resolve      from a name, or from "package.module:callable", to an `nn.Module`
    load_weights               from a file of weights into a network
    checkpoint                 trained weights that come with billhook

A factory is a pure function with keyword arguments; its result depends on them and on torch's seed.
"""

from __future__ import annotations

from billhook.models._arguments import build, parse_arguments
from billhook.models._checkpoints import Checkpoint, checkpoint, save_checkpoint
from billhook.models._registry import models
from billhook.models._resolve import resolve
from billhook.models._weights import load_weights

__all__ = [
    "Checkpoint",
    "build",
    "checkpoint",
    "load_weights",
    "models",
    "parse_arguments",
    "resolve",
    "save_checkpoint",
]
