"""A VGG of four convolutions: large enough to prune, small enough to train on a laptop."""

from __future__ import annotations

from functools import partial

from billhook.models._vgg import vgg
from billhook.registry import Info

INFO = Info(title="four convolutions 32-M-64-M-128-128 with batch norm, 0.24 M parameters")
ENTRY = partial(vgg, ((32,), (64,), (128, 128)))
