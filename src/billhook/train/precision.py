"""Which arithmetic a machine is good at."""

from __future__ import annotations

import torch

from billhook.errors import InputError
from billhook.train.config import PRECISIONS

DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def resolve_precision(precision: str, accelerator: str) -> str:
    """Return the precision that "auto" stands for on this machine; others are returned as they are.

    Args:
        precision: "auto", "32-true", "bf16-mixed" or "16-mixed".
        accelerator: "auto", "cpu", "cuda" or "mps".
    Raises:
        InputError: for an unknown precision, and for 16-mixed without a GPU.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} must be one of {', '.join(map(repr, PRECISIONS))}")
    cuda = accelerator in ("auto", "cuda") and torch.cuda.is_available()
    mps = accelerator in ("auto", "mps") and torch.backends.mps.is_available()
    if precision == "16-mixed" and not cuda and not mps:
        raise InputError("precision='16-mixed' needs a GPU; use 'bf16-mixed' or '32-true' on a CPU")
    if precision != "auto":
        return precision
    if cuda:
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if not mps and _cpu_computes_in_bf16() else "32-true"


def _cpu_computes_in_bf16() -> bool:
    """Without such instructions bf16 is emulated, and slower than fp32."""
    abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(abilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16"))
