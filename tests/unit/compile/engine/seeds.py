"""Small networks that have every kind of instruction between them, as files to begin fuzzing with.

python -m tests.unit.compile.engine.seeds FOLDER
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from billhook.compile.compiler import assembled, compile_model
from billhook.compile.format import ACTIVATIONS, KINDS
from billhook.compile.int8.calibration import Calibration
from billhook.compile.ir import Network
from billhook.compile.products import Product
from billhook.compile.reuse import DeepReuse, with_reuse
from billhook.compile.tiles import ROWS, Tile
from tests.unit.compile.exactness import Function, features, image

HEADER, INSTRUCTION = 64, 160  # bytes
INSTRUCTIONS_AT = 32  # in the header


def _residual(conv: nn.Module, x: Tensor) -> Tensor:
    return functional.relu(conv(x.tanh()) + x)


def _arithmetic(x: Tensor) -> Tensor:
    a, b = x[:, :2], x[:, 2:]
    return torch.maximum(a * b, torch.minimum(a - b, b / (a * a + 1)))


def _gated(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


def _pooled(x: Tensor) -> tuple[Tensor, ...]:
    return (
        functional.max_pool2d(x, 3, 2, 1),
        functional.max_pool2d(x, 2, 1, dilation=2),
        functional.avg_pool2d(x, 3, 1, 1),
        functional.avg_pool2d(x, (2, 3), 2, (0, 1), ceil_mode=True, count_include_pad=False),
    )


def _resized(x: Tensor) -> tuple[Tensor, ...]:
    return (
        functional.interpolate(x, scale_factor=2.0),
        functional.interpolate(x, (4, 9), mode="bilinear"),
        functional.interpolate(x, (7, 3), mode="bilinear", align_corners=True),
    )


def _rearranged(x: Tensor) -> Tensor:
    return torch.cat([x[:, [2, 0]], functional.pad(x, (1, 2, 0, 1))[:, :1, 1:, 2:-1], x], 1)


def _two(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return a * 2 + b[:, :, None, None], torch.softmax(b, 1)


def _shaped(x: Tensor) -> Tensor:
    for shape in (
        *(functional.leaky_relu, functional.sigmoid, functional.silu, functional.hardsigmoid),
        *(functional.hardswish, functional.tanh, functional.gelu, functional.relu6),
    ):
        x = shape(x)
    return functional.gelu(x, approximate="tanh")


def _moved(x: Tensor) -> Tensor:
    return torch.cat([x.flip(3), x.transpose(2, 3), functional.pad(x[..., :1], (0, 4, 0, 0), "replicate")], 1)


def _covered(x: Tensor) -> tuple[Tensor, Tensor]:
    return functional.adaptive_avg_pool2d(x, (3, 4)), functional.adaptive_max_pool2d(x, (2, 7))


def _normed(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return functional.group_norm(x, 2), functional.layer_norm(x.permute(0, 2, 3, 1), [4]), x.mean((2, 3))


def _attention(x: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(x, 2 * x, x)


def _separable(channels: int, kernel: int, stride: int) -> nn.Module:
    return nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels)


NETWORKS: Mapping[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    "convolutions": lambda: (
        nn.Sequential(nn.Conv2d(3, 10, 3, padding=1), nn.ReLU(), nn.Conv2d(10, 6, 3, 2, 1, groups=2)),
        (image(3, 9, 8),),
    ),
    "residual": lambda: (Function(_residual, nn.Conv2d(9, 9, 1)), (image(9, 3, 14),)),
    "depthwise": lambda: (
        nn.Sequential(*(_separable(2, k, s) for k, s in ((3, 1), (5, 2), (5, 1), (3, 2)))),
        (image(2, 13, 21),),
    ),
    "linear": lambda: (
        nn.Sequential(nn.Flatten(), nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3), nn.Softmax(1)),
        (image(2, 2, 3),),
    ),
    "one pixel": lambda: (nn.Conv2d(18, 18, 3, groups=18), (image(18, 3, 3),)),
    "normalised": lambda: (
        nn.Sequential(nn.BatchNorm2d(3), nn.Softmax(1), nn.AdaptiveAvgPool2d(1)),
        (image(3, 4, 5),),
    ),
    "vectors": lambda: (Function(lambda x: torch.relu(x * 2 + 1) / (x * x + 1)), (features(19),)),
    "arithmetic": lambda: (Function(_arithmetic), (image(4, 3, 6),)),
    "gated": lambda: (Function(_gated), (image(3, 5, 4),)),
    "pooled": lambda: (Function(_pooled), (image(2, 6, 7),)),
    "pooled wide": lambda: (nn.MaxPool2d((1, 1100), 1), (image(1, 1, 1103),)),
    "resized": lambda: (Function(_resized), (image(2, 3, 4),)),
    "rearranged": lambda: (Function(_rearranged), (image(3, 4, 5),)),
    "transposed": lambda: (nn.ConvTranspose2d(3, 2, 3, 2, 1), (image(3, 4, 5),)),
    "moved": lambda: (Function(_moved), (image(2, 5, 5),)),
    "covered": lambda: (Function(_covered), (image(2, 5, 6),)),
    "normed": lambda: (Function(_normed), (image(4, 3, 5),)),
    "normed vectors": lambda: (nn.LayerNorm(19), (features(19),)),
    "attention": lambda: (Function(_attention), (image(2, 5, 3),)),
    "two inputs": lambda: (Function(_two), (image(3, 2, 2), features(3))),
    "activations": lambda: (Function(_shaped), (image(2, 2, 9),)),
}


REUSING = ("convolutions", "residual")  # also with deep reuse


def seeds() -> Iterator[tuple[str, bytes]]:
    """Yield names and model files; networks with convolutions once for every way to cut them."""
    for name, build in NETWORKS.items():
        torch.manual_seed(0)
        model, inputs = build()
        network = compile_model(model.eval(), inputs, check=False).network
        yield from _cut(name, network)
        if name in REUSING:
            yield f"{name} reuse", assembled(with_reuse(network, DeepReuse(length=5, hashes=3, outputs=1)))
    for name in ("convolutions", "residual", "depthwise", "linear", "pooled"):
        torch.manual_seed(0)
        model, inputs = NETWORKS[name]()
        calibration = Calibration([inputs], "minmax")
        network = compile_model(model.eval(), inputs, check=False, calibration=calibration).network
        yield from _cut(f"{name} in 8 bits", network)


def _cut(name: str, network: Network) -> Iterator[tuple[str, bytes]]:
    products = [op.output.name for op in network if isinstance(op, Product)]
    for rows in ROWS if products else ROWS[:1]:
        file = assembled(network, {product: Tile(rows, 2) for product in products})
        yield (f"{name} {rows}" if products else name), file


def contents(file: bytes) -> set[str]:
    """Return the kinds of instructions and the activations that a model file has."""
    (count,) = struct.unpack_from("<I", file, INSTRUCTIONS_AT)
    numbers = (struct.unpack_from("<II", file, HEADER + i * INSTRUCTION) for i in range(count))
    return {name for kind, shape in numbers for name in (list(KINDS)[kind], ACTIVATIONS[shape])}


def main(folder: Path) -> None:
    """Write the files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in seeds():
        (folder / f"{name.replace(' ', '-')}.bhk").write_bytes(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
