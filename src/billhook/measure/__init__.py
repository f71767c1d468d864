"""Numbers somebody measured: latency, memory, accuracy and size of exported networks.

Nothing here imports torch or a runtime; runtimes are `Backend`s, looked up by name.
"""

from __future__ import annotations

from billhook.measure.accuracy import accuracy
from billhook.measure.artifact import Artifact
from billhook.measure.backend import Backend, Rounding, Session, backends
from billhook.measure.environment import environment
from billhook.measure.latency import Profile, latency, profile
from billhook.measure.manifest import FileRecord, Manifest, TensorSpec
from billhook.measure.rig import LatencyRig, LatencySample
from billhook.measure.rounds import QUICK, Comparison, Timing, compare
from billhook.measure.size import compressed_size, size

__all__ = [
    "QUICK",
    "Artifact",
    "Backend",
    "Comparison",
    "FileRecord",
    "LatencyRig",
    "LatencySample",
    "Manifest",
    "Profile",
    "Rounding",
    "Session",
    "TensorSpec",
    "Timing",
    "accuracy",
    "backends",
    "compare",
    "compressed_size",
    "environment",
    "latency",
    "profile",
    "size",
]
