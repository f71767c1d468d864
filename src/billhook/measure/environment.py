"""The machine and the versions behind a measurement; no host names, no paths."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

LIBRARIES = ("billhook", "torch", "numpy", "onnx", "onnxscript", "onnxruntime", "openvino")


def environment() -> dict[str, Any]:
    """Return machine, processor, cores, memory, operating system and versions as plain data."""
    return {
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
        "logical_cores": os.cpu_count(),
        "usable_cores": len(usable_cores()) or os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions(LIBRARIES),
    }


def versions(libraries: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of those `libraries` that are installed, without importing them."""
    found = {}
    for name in libraries:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def usable_cores() -> list[int]:
    """Return the cores this process may run on; empty where the system cannot tell."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))


def quiet_cores(count: int, *, watch_seconds: float = 0.1) -> list[int]:
    """Return the `count` usable cores that did least during `watch_seconds`; empty if unknown.

    Always taking the same core would make two timing runs on one machine fight for it.
    """
    usable = usable_cores()
    if len(usable) <= count:
        return usable
    busy = psutil.cpu_percent(interval=watch_seconds, percpu=True)
    load = {core: busy[core] if core < len(busy) else 100.0 for core in usable}
    # Core 0 often serves interrupts, so among equals the highest number wins.
    return sorted(sorted(usable, key=lambda core: (load[core], -core))[:count])


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()
