"""Weights in whole multiples of a scale per output channel, and the sums that they can make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from billhook.compile.ir import Floats

LEAST_SCALE = 2.0**-60
"""Of weights and of grids; a product of two is still a normal number in float32."""
LEVELS = 127  # ± for weights; -128 is left out, so that a weight and its negative are both there
INPUTS = 255
LARGEST_BIAS = 2**29  # in steps of a sum; leaves room for as much again
FINE_BIAS = 2**20  # steps of the bias of an output without weights, which alone says how fine they are
LARGEST_SUM = 2**30  # below which the engine's sums of 32 bits, zero points included, do not overflow


@dataclass(frozen=True)
class Whole:
    """Weights of one operator.

    Attributes:
        weight: Whole multiples of `scale`, as floats; zeros are still zeros.
        scale: [outputs].
        bias: [outputs], whole multiples of `scale` · the step of the input, as far as float32 holds them.
        overflows: A sum could be too large for the engine.
    """

    weight: Floats
    scale: Floats
    bias: Floats
    overflows: bool


def whole(
    weight: Floats, bias: Floats, step: float, inputs_means: npt.NDArray[np.float64] | None = None
) -> Whole:
    """Return weights [outputs, ...] in whole multiples of scales, symmetric around zero.

    Args:
        weight: Finite weights.
        bias: [outputs].
        step: Of the grid that the input lies on.
        inputs_means: Mean of what each weight is multiplied with, of the shape of `weight`; the mean error
            that rounding makes is then taken out of the bias (Nagel et al., "Data-Free Quantization Through
            Weight Equalization and Bias Correction", ICCV 2019, section 4.2).
    """
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    largest = np.abs(rows).max(axis=1, initial=0.0)
    alone = np.where(bias != 0, np.abs(bias) / (step * FINE_BIAS), 1.0)
    scale = np.maximum(np.where(largest > 0, largest / LEVELS, alone), LEAST_SCALE)
    scale = np.maximum(scale, np.abs(bias) / (step * LARGEST_BIAS)).astype(np.float32)
    multiples = np.clip(np.round(rows / scale[:, None]), -LEVELS, LEVELS)
    made = (multiples * scale[:, None]).astype(np.float32)
    if inputs_means is not None:
        error = ((made - rows) * inputs_means.reshape(rows.shape)).sum(axis=1)
        bias = bias - error
    unit = step * scale.astype(np.float64)
    begins = np.round(bias / unit)
    sums = np.abs(multiples).sum(axis=1) * INPUTS + np.abs(begins)
    overflows = bool((sums > LARGEST_SUM).any())
    return Whole(made.reshape(weight.shape), scale, (begins * unit).astype(np.float32), overflows)
