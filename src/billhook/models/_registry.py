"""The registry of networks."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from billhook.registry import Registry

models: Registry[Callable[..., nn.Module]] = Registry("model", "billhook.models", dashes=True)
