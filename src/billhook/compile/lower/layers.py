"""Lowering of convolutions, linear layers and batch norm."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from billhook.compile.ir import Convolution, Floats, Linear, Pair
from billhook.compile.lower.arithmetic import affine
from billhook.compile.lower.attention import product
from billhook.compile.lower.base import Builder, Refusal, operator
from billhook.compile.lower.channels import channels_first
from billhook.compile.lower.parameters import bias_of, floats, pair
from billhook.compile.lower.transposed import transposed_convolution
from billhook.compile.lower.turned import Turned, lying, turned
from billhook.compile.lower.view import View
from billhook.graph.rules._base import Call

_MOST_WEIGHTS = 1 << 22  # of the matrix that a convolution over a vector becomes


@operator("conv2d conv1d convolution _convolution")
def _convolution(build: Builder, call: Call) -> View:
    if call.get("transposed"):
        return transposed_convolution(build, call)
    x, weight = build.tensor(call, "input"), build.constant(call, "weight")
    assert weight is not None
    dims = weight.dim() - 2
    if dims not in (1, 2):
        raise Refusal(f"has {dims} spatial dimensions")
    numbers = not x.spatial and x.planes.size != x.shape[0]
    if numbers and x.planes.size * prod(build.shape(call)) <= _MOST_WEIGHTS:
        return _convolution_of_vector(build, call, x, weight)
    if dims == 1:
        weight = weight[:, :, None]
    source = build.image(x, call.node.name, dims)
    stride, dilation = pair(call["stride"], dims), pair(call["dilation"], dims)
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    above, below, left, right = _padding(call["padding"], kernel, dilation, dims)
    shape = build.shape(call)
    made = build.run(
        Convolution,
        call,
        [source],
        (shape[0], 1 if dims == 1 else shape[1], shape[-1]),
        weight=floats(weight),
        bias=bias_of(build, call, shape[0]),
        stride=stride,
        padding=(above, below, left, right),
        dilation=dilation,
        groups=int(call["groups"]),
    )
    return build.view(made, shape)


def _convolution_of_vector(build: Builder, call: Call, x: View, weight: Tensor) -> View:
    """Append a convolution over numbers that are a plane each, as a linear layer; most weights are zero."""
    shape = build.shape(call)
    inputs, outputs = x.planes.size, prod(shape)
    convolve = functional.conv1d if weight.dim() == 3 else functional.conv2d
    padding = call["padding"] if isinstance(call["padding"], str) else list(call["padding"])
    each = torch.eye(inputs, dtype=torch.float64).reshape(inputs, *x.shape)
    matrix = convolve(
        each, weight.double(), None, call["stride"], padding, call["dilation"], int(call["groups"])
    ).reshape(inputs, outputs)
    bias = bias_of(build, call, shape[0]).repeat(outputs // shape[0])
    source = build.read(x, call.node.name)
    made = build.run(Linear, call, [source], (outputs, 1, 1), weight=floats(matrix.T), bias=bias)
    return build.view(made, shape)


def _padding(padding: Any, kernel: Pair, dilation: Pair, dims: int) -> tuple[int, int, int, int]:
    if padding == "valid":
        return 0, 0, 0, 0
    if padding == "same":  # an odd one goes below and right
        down, across = (d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
        return down // 2, down - down // 2, across // 2, across - across // 2
    vertical, horizontal = pair(padding, dims, fill=0)
    return vertical, vertical, horizontal, horizontal


@operator("linear")
def _linear(build: Builder, call: Call) -> View | Turned:
    return linear_of(build, call, build.loose(call))


def linear_of(build: Builder, call: Call, x: View | Turned) -> View | Turned:
    """Append a linear layer."""
    weight = build.constant(call, "weight")
    assert weight is not None
    outputs = 1 if weight.dim() == 1 else weight.shape[0]
    return _product(build, call, x, weight.reshape(outputs, -1), bias_of(build, call, outputs))


@operator("addmm")
def _addmm(build: Builder, call: Call) -> View | Turned:
    if call["alpha"] != 1 or call["beta"] != 1:
        raise Refusal("has alpha or beta")
    weight, bias = build.constant(call, "mat2"), build.constant(call, "self")
    assert weight is not None
    assert bias is not None
    if bias.dim() > 1:
        raise Refusal("adds a matrix")
    shift = floats(bias.expand(weight.shape[1]))
    return _product(build, call, build.loose(call, "mat1"), weight.T, shift)


@operator("mm matmul")
def _matmul(build: Builder, call: Call) -> View | Turned:
    if isinstance(build.operand(call, "mat2", "other"), View | Turned):
        return product(build, call, build.loose(call, "self"), build.loose(call, "mat2", "other"))
    weight = build.constant(call, "mat2", "other")
    assert weight is not None
    if weight.dim() != 2:
        raise Refusal(f"multiplies by a tensor of {weight.dim()} dimensions")
    return _product(build, call, build.loose(call, "self"), weight.T, np.zeros(weight.shape[1], np.float32))


def _product(build: Builder, call: Call, x: View | Turned, weight: Tensor, bias: Floats) -> View | Turned:
    """Append weight · x + bias: of a vector, or of the last dimension of a tensor, as a 1×1 convolution."""
    if len(x.shape) == 1:
        source = build.vector(lying(x)[0], call.node.name)
        size = (weight.shape[0], 1, 1)
        made = build.run(Linear, call, [source], size, weight=floats(weight), bias=bias)
        return build.view(made, build.shape(call))
    view, order = channels_first(build, x, len(x.shape) - 1, call.node.name)
    source = build.read(view, call.node.name)
    groups = view.planes.size // view.planes.shape[-1]
    outputs = groups * weight.shape[0]
    made = build.run(
        Convolution,
        call,
        [source],
        (outputs, source.height, source.width),
        weight=np.tile(floats(weight)[:, :, None, None], (groups, 1, 1, 1)),
        bias=np.tile(bias, groups),
        groups=groups,
    )
    planes = build.view(made).planes.reshape(*view.planes.shape[:-1], -1)
    return turned(View(planes, view.spatial), order)


@operator("batch_norm _native_batch_norm_legit_no_training cudnn_batch_norm native_batch_norm")
def _batch_norm(build: Builder, call: Call) -> View | list[View | None]:
    x = build.tensor(call, "input")
    mean, variance = build.constant(call, "running_mean"), build.constant(call, "running_var")
    if call.get("training") or mean is None or variance is None:
        raise Refusal("takes statistics of the batch")
    weight, bias = build.constant(call, "weight"), build.constant(call, "bias")
    scale = torch.rsqrt(variance.double() + float(call.get("eps", "epsilon")))
    scale = scale if weight is None else scale * weight.double()
    shift = -mean.double() * scale + (0 if bias is None else bias.double())
    channels = (-1, *[1] * (len(x.shape) - 1))
    made = affine(build, call, x, scale.numpy().reshape(channels), shift.numpy().reshape(channels))
    several = isinstance(call.node.meta["val"], (tuple, list))
    return [made, None, None] if several else made
