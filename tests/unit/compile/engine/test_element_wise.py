"""AFFINE, BINARY, SOFTMAX and NORM against PyTorch, on every instruction set, with threads and batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from billhook.compile.ir import NONE, RELU, Activation
from tests.unit.compile.engine.builder import Floats, Model, Place, numbers

SIZES = [(3, 1, 1), (5, 4, 3), (40, 43, 37)]
FUNCTIONS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
    "divide": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}
ACTIVATIONS: dict[str, tuple[Activation, Callable[[torch.Tensor], torch.Tensor]]] = {
    "relu": (RELU, functional.relu),
    "relu6": (Activation("clip", 0, 6), functional.relu6),
    "leaky": (Activation("leaky", 0.1), lambda x: functional.leaky_relu(x, 0.1)),
    "sigmoid": (Activation("sigmoid"), torch.sigmoid),
    "silu": (Activation("silu"), functional.silu),
    "hardsigmoid": (Activation("hardsigmoid"), functional.hardsigmoid),
    "hardswish": (Activation("hardswish"), functional.hardswish),
    "tanh": (Activation("tanh"), torch.tanh),
    "gelu": (Activation("gelu"), functional.gelu),
    "gelu_tanh": (Activation("gelu_tanh"), lambda x: functional.gelu(x, approximate="tanh")),
}


def _flat(place: Place, *, vector: bool = False) -> dict[str, int]:
    return {**place.args(), "vectors": 0 if vector else place.vectors}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("scaled", "shifted"), [(True, True), (True, False), (False, True), (False, False)])
def test_affine(size: tuple[int, int, int], scaled: bool, shifted: bool) -> None:
    model = Model()
    x, y = model.reads(model.place(*size)), model.writes(model.place(*size))
    scale, shift = numbers(size[0], 1, 1, seed=1)[0], numbers(size[0], 1, 1, seed=2)[0]
    data = {"in": x.addresses, "mask": y.mask}
    data |= {"scale": scale} if scaled else {}
    data |= {"shift": shift} if shifted else {}
    model.instruction("affine", _flat(y), data, RELU)
    given = numbers(*size)
    expected = given * (scale if scaled else np.float32(1)) + (shift if shifted else np.float32(0))
    model.check([given], np.maximum(expected, 0))


@pytest.mark.parametrize("channels", [1, 13, 3001])
def test_affine_of_vectors(channels: int) -> None:
    model = Model()
    x, y = model.reads(model.vector(channels)), model.writes(model.vector(channels))
    scale, shift = numbers(channels, 1, 1, seed=1)[0], numbers(channels, 1, 1, seed=2)[0]
    model.instruction(
        "affine", _flat(y, vector=True), {"in": x.addresses[::-1], "scale": scale, "shift": shift}
    )
    given = numbers(channels, 1, 1)
    model.check([given], given[:, ::-1] * scale + shift)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    activation, function = ACTIVATIONS[name]
    model = Model()
    x, y = model.reads(model.place(2, 9, 11)), model.writes(model.place(2, 9, 11))
    model.instruction("affine", _flat(y), {"in": x.addresses, "mask": y.mask}, activation)
    given = numbers(2, 9, 11) * 4
    given[0, 0, 0, :5] = 0, 100, -100, 1e-5, -1e-5
    model.check([given], function(torch.from_numpy(given)).numpy(), 3e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("by_channel", [False, True])
def test_binary(name: str, size: tuple[int, int, int], by_channel: bool) -> None:
    model = Model()
    a = model.reads(model.place(*size))
    b = model.reads(model.vector(size[0]) if by_channel else model.place(*size))
    y = model.writes(model.place(*size))
    args = {**_flat(y), "function": list(FUNCTIONS).index(name), "by_channel": int(by_channel)}
    model.instruction("binary", args, {"in": a.addresses[::-1], "scale": b.addresses, "mask": y.mask})
    left, right = numbers(*size), numbers(b.channels, b.height, b.width, seed=1)
    expected = FUNCTIONS[name](torch.from_numpy(left[:, ::-1].copy()), torch.from_numpy(right))
    model.check([left, right], expected.numpy())


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("channels", [1, 21, 3001])
def test_binary_of_vectors(name: str, channels: int) -> None:
    model = Model()
    a, b = model.reads(model.vector(channels)), model.reads(model.vector(channels))
    y = model.writes(model.vector(channels))
    args = {**_flat(y, vector=True), "function": list(FUNCTIONS).index(name)}
    model.instruction("binary", args, {"in": a.addresses, "scale": b.addresses}, Activation("clip", -1, 1))
    left, right = numbers(channels, 1, 1), numbers(channels, 1, 1, seed=1)
    expected = FUNCTIONS[name](torch.from_numpy(left), torch.from_numpy(right)).clamp(-1, 1)
    model.check([left, right], expected.numpy())


def _softmax(given: Floats) -> Floats:
    return np.asarray(torch.softmax(torch.from_numpy(given), 1).numpy())


@pytest.mark.parametrize("size", [*SIZES, (1, 5, 5)])
def test_softmax(size: tuple[int, int, int]) -> None:
    model = Model()
    x, y = model.reads(model.place(*size)), model.writes(model.place(*size))
    model.instruction("softmax", _flat(y), {"in": x.addresses, "mask": y.mask})
    given = numbers(*size) * 20
    model.check([given], _softmax(given))


@pytest.mark.parametrize("channels", [1, 10, 1000, 3001])
def test_softmax_of_vectors(channels: int) -> None:
    model = Model()
    x, y = model.reads(model.vector(channels)), model.writes(model.vector(channels))
    model.instruction("softmax", _flat(y, vector=True), {"in": x.addresses}, NONE)
    given = numbers(channels, 1, 1) * 20
    model.check([given], _softmax(given))


def _norm(given: Floats, groups: int, by_pixel: bool, scale: Floats, shift: Floats) -> Floats:
    x = torch.from_numpy(given.copy()).double()
    apart = x.reshape(len(x), groups, -1, *x.shape[2:])
    over = (2,) if by_pixel else (2, 3, 4)
    variance, mean = torch.var_mean(apart, over, unbiased=False, keepdim=True)
    made = ((apart - mean) / (variance + 1e-5).sqrt()).reshape(x.shape).numpy()
    return np.maximum(made * scale[:, None, None] + shift[:, None, None], 0).astype(np.float32)


def _norm_args(place: Place, groups: int, pixels: int, *, vector: bool = False) -> dict[str, int]:
    epsilon = int(np.float32(1e-5).view(np.uint32))
    group = place.channels // groups
    return {**_flat(place, vector=vector), "group": group, "pixels": pixels, "epsilon": epsilon}


@pytest.mark.parametrize("size", [(4, 1, 1), (6, 4, 3), (40, 43, 37), (96, 7, 7)])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("by_pixel", [True, False])
def test_norm(size: tuple[int, int, int], groups: int, by_pixel: bool) -> None:
    model = Model()
    x, y = model.reads(model.place(*size)), model.writes(model.place(*size))
    scale, shift = numbers(size[0], seed=1)[0], numbers(size[0], seed=2)[0]
    data = {"in": x.addresses, "mask": y.mask, "scale": scale, "shift": shift}
    model.instruction("norm", _norm_args(y, groups, 0 if by_pixel else size[1] * size[2]), data, RELU)
    given = 2 * numbers(*size) + np.float32(3)
    model.check([given], _norm(given, groups, by_pixel, scale, shift), 1e-5)


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (21, 3), (3000, 2), (60, 60)])
def test_norm_of_vectors(channels: int, groups: int) -> None:
    model = Model()
    x, y = model.reads(model.vector(channels)), model.writes(model.vector(channels))
    scale, shift = numbers(channels, seed=1)[0], numbers(channels, seed=2)[0]
    data = {"in": x.addresses[::-1], "scale": scale, "shift": shift}
    model.instruction("norm", _norm_args(y, groups, 0, vector=True), data, RELU)
    given = numbers(channels, 1, 1)
    model.check([given], _norm(given[:, ::-1], groups, True, scale, shift), 1e-5)


def test_the_norm_of_numbers_far_from_zero_is_exact() -> None:
    model = Model()
    x, y = model.reads(model.place(8, 20, 20)), model.writes(model.place(8, 20, 20))
    scale, shift = np.ones(8, np.float32), np.zeros(8, np.float32)
    data = {"in": x.addresses, "mask": y.mask, "scale": scale, "shift": shift}
    model.instruction("norm", _norm_args(y, 1, 400), data, RELU)
    given = numbers(8, 20, 20) + np.float32(1000)
    model.check([given], _norm(given, 1, False, scale, shift), 1e-3)


@pytest.mark.parametrize("size", [(6, 1, 1), (6, 4, 3), (24, 13, 17)])
@pytest.mark.parametrize("vector", [False, True])
def test_softmax_of_groups(size: tuple[int, int, int], vector: bool) -> None:
    model = Model()
    if vector:
        size = (size[0], 1, 1)
        x, y = model.reads(model.vector(size[0])), model.writes(model.vector(size[0]))
    else:
        x, y = model.reads(model.place(*size)), model.writes(model.place(*size))
    data = {"in": x.addresses} if vector else {"in": x.addresses, "mask": y.mask}
    model.instruction("softmax", {**_flat(y, vector=vector), "function": 3}, data)
    given = numbers(*size)
    apart = torch.from_numpy(given).unflatten(1, (-1, 3))
    model.check([given], apart.softmax(2).flatten(1, 2).numpy())
