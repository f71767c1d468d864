"""A C project builds without warnings and computes what the network computes; its header says what is fed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from billhook.compile.c_project import MODEL_FOLDER, write_project
from billhook.compile.compiler import compile_model
from billhook.compile.library import ENGINE
from billhook.compile.session import EnginePort
from tests.unit.compile.exactness import Function

STRANGE = 'a "b"\\n?/* é'


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; run scripts/setup --tests as root")
    return found


@pytest.mark.slow
def test_two_inputs_and_outputs_with_gcc(tmp_path: Path) -> None:
    def function(image: torch.Tensor, shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return image * 2, image.mean((2, 3)) + shift

    model = Function(function).eval()
    x, shift = torch.randn(1, 3, 4, 5), torch.randn(1, 3)
    network = compile_model(model, (x, shift))
    inputs, outputs = (
        [EnginePort(p.name, p.shape) for p in ports]
        for ports in (network.network.inputs, network.network.outputs)
    )
    project, build = tmp_path / "a project", tmp_path / "build"
    project.mkdir()
    write_project(project, inputs, outputs, "1.2.3")
    (project / MODEL_FOLDER).mkdir()
    (project / MODEL_FOLDER / "model.bhk").write_bytes(network.file)
    cmake = _program("cmake")
    _run(cmake, "-S", project, "-B", build, f"-DCMAKE_C_COMPILER={_program('gcc')}")
    assert "warning" not in _run(cmake, "--build", build, "--parallel", "2").lower()

    for name, tensor in (("x", x), ("shift", shift)):
        tensor.numpy().tofile(tmp_path / name)
    program = build / "network"
    assert _run(program, tmp_path / "x", tmp_path / "shift", "-o", tmp_path / "y") == ""
    with torch.no_grad():
        expected = np.concatenate([y.numpy().ravel() for y in model(x, shift)])
    np.testing.assert_allclose(np.fromfile(tmp_path / "y", np.float32), expected, rtol=1e-6, atol=1e-6)

    lines = _run(program).splitlines()  # zeros
    assert len(lines) == 60 + 3
    assert lines[0] == f"{outputs[0].name}[0] = 0"
    for wrong, message in (
        ([tmp_path / "shift"], "does not hold as many numbers"),
        ([tmp_path / "none"], "cannot be opened"),
        ([tmp_path / "x", tmp_path / "shift", tmp_path / "x"], "has fewer inputs"),
    ):
        done = subprocess.run([program, *wrong], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert message in done.stderr


def test_the_header_names_inputs_and_outputs(tmp_path: Path) -> None:
    write_project(
        tmp_path, [EnginePort(STRANGE, (3, 4, 5)), EnginePort("y", ())], [EnginePort("z", (7,))], "1"
    )
    source = tmp_path / "names.c"
    source.write_text(
        '#include <stdio.h>\n#include "network.h"\n'
        "const char *names[] = NETWORK_INPUT_NAMES; int sizes[] = NETWORK_INPUT_SIZES;\n"
        "int shape[] = NETWORK_INPUT_0_SHAPE, scalar[] = NETWORK_INPUT_1_SHAPE;\n"
        "int main(void) {\n"
        'printf("%s|%d %d|%zu %d|%d %d|%d", names[0], sizes[0], sizes[1], sizeof shape / sizeof *shape,\n'
        "shape[2], scalar[0], NETWORK_INPUTS, NETWORK_OUTPUTS); }\n"
    )
    program = tmp_path / "names"
    _run(_program("gcc"), "-std=c11", "-Wall", "-Werror", source, "-o", program)
    assert _run(program) == f"{STRANGE}|60 1|3 5|1 2|1"


def test_it_holds_the_engine_and_nothing_that_was_built(tmp_path: Path) -> None:
    write_project(tmp_path, [EnginePort("x", (1,))], [EnginePort("y", (1,))], "1.2.3")
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert {"CMakeLists.txt", "README.md", "engine/isa.c", "engine/include/billhook.h"} <= files
    ours = Path(__file__).parents[3] / "LICENSE"
    assert (tmp_path / "LICENSE").read_text() == ours.read_text(), "the package has a copy of its own"
    assert not [name for name in files if name.endswith(".so") or "fuzz" in name]
    assert (tmp_path / "engine" / "CMakeLists.txt").read_text() == (ENGINE / "CMakeLists.txt").read_text()
    assert "Made by billhook 1.2.3." in (tmp_path / "README.md").read_text()
    assert not re.search(
        r"\$[a-z{]", (tmp_path / "network.h").read_text() + (tmp_path / "README.md").read_text()
    )


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
