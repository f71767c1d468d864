"""VGG-16 with batch norm for small images."""

from __future__ import annotations

from functools import partial

from billhook.models._vgg import vgg
from billhook.registry import Info

INFO = Info(
    title="VGG-16 with batch norm for small images, 14.7 M parameters",
    source="Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556",
)
ENTRY = partial(vgg, ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)))
