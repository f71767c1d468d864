"""Makes torchvision importable where its compiled part is missing or does not fit the installed torch.

Its networks and transforms are Python, but importing it registers two operators which the compiled part
declares. Call `declare()` before the first `import torchvision` or `import timm`, or use conftest's fixtures.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import torch


@cache
def declare() -> torch.library.Library | None:
    """Load torchvision's operators or, failing that, declare their schemas; the cache keeps them declared."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    try:
        torch.ops.load_library(Path(spec.origin).parent / "_C.so")
    except (OSError, RuntimeError):
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
    return None
