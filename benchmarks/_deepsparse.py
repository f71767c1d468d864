"""DeepSparse 1.8.0, the last version: an environment of its own, and ONNX files that it can read.

It wants versions of numpy, onnx and protobuf that billhook cannot live with, and Python 3.11 at most.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from billhook.measure import Artifact

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".cache" / "deepsparse-venv"
VERSION = "1.8.0"
REQUIREMENTS = (
    f"deepsparse=={VERSION}",
    f"sparsezoo=={VERSION}",
    "onnx<1.15",
    "numpy<2",
    "protobuf<4",
    "pydantic<2.8",
    "psutil",
)
PATH = (str(ROOT), str(ROOT / "src"))  # of the timing process, in the place of this environment's packages
LARGEST_IR = 8  # of ONNX; its files do not differ from newer ones in what networks like these need


def interpreter() -> Path | None:
    """Return the Python of its environment, made if necessary; None where it cannot be had, and say why."""
    python, stamp = PLACE / "bin" / "python", PLACE / "installed"
    wanted = "\n".join(REQUIREMENTS)
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing DeepSparse {VERSION} into {PLACE.relative_to(ROOT)}", file=sys.stderr)
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *REQUIREMENTS]
    for command in ([sys.executable, "-m", "venv", "--clear", str(PLACE)], pip):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            last = (done.stdout.strip().splitlines() or ["no message"])[-1]
            print(f"left out: DeepSparse {VERSION} cannot be installed here ({last})", file=sys.stderr)
            return None
    stamp.write_text(wanted)
    return python


def readable(artifact: Artifact) -> Artifact:
    """Rewrite an artifact of ONNX Runtime in place so that DeepSparse runs all of it, and return it.

    The file says an older version of the format, and a mean over all pixels becomes a global average
    pooling, which is the same: a mean over two dimensions makes DeepSparse leave the *whole* network to the
    ONNX Runtime within it, at the speed of a dense one.
    """
    import onnx

    model = onnx.load(str(artifact.model_path))
    model.ir_version = min(model.ir_version, LARGEST_IR)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "ReduceMean" and _is_over_pixels(node, constants):
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]
    onnx.save(model, str(artifact.model_path))
    return Artifact.create(artifact.directory, artifact.manifest)


def _is_over_pixels(node: Any, constants: dict[str, npt.NDArray[Any]]) -> bool:
    keeps = all(a.i for a in node.attribute if a.name == "keepdims")
    axes = constants.get(node.input[1]) if len(node.input) > 1 else None
    return keeps and axes is not None and sorted(int(a) % 4 for a in axes) == [2, 3]


def output(python: Path, artifact: Artifact, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return what DeepSparse computes."""
    given, made = (artifact.directory.with_suffix(f".{n}.npy") for n in ("in", "out"))
    np.save(given, x)
    script = str(Path(__file__).with_name("_deepsparse_runtime.py"))
    command = [str(python), "-P", script, str(artifact.directory), str(given), str(made)]
    subprocess.run(command, env={"PYTHONPATH": ":".join(PATH)}, check=True, capture_output=True)
    found: npt.NDArray[np.float32] = np.load(made)
    return found
