"""Which operator on which line stopped an export, read from what torch raised."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import torch

from billhook.errors import ExportError

_OPERATOR = re.compile(r"target=torch\.ops\.([\w.]+)|OpOverload\(op='([\w.]+)'")
_NODE = re.compile(r"translating node %(\w+)")
_LINE = re.compile(r'File "([^"]+)", line (\d+), in \S+\n\s*(.+)')
_TORCH = str(Path(torch.__file__).parent)
_OURS = str(Path(__file__).parent)


def export_error(error: Exception, program: torch.export.ExportedProgram | None) -> ExportError:
    """Return the error to raise for `error`.

    Args:
        error: What torch raised.
        program: The captured network, if it was captured: then its ONNX form is what is missing.
    """
    text = "\n".join(str(e) for e in _chain(error))
    operator = _OPERATOR.search(text)
    what = f"operator {operator[1] or operator[2]}" if operator else _first_line(_chain(error)[-1])
    where = _source(error, text, program)
    if program is None:
        problem, advice = "cannot be captured", "rewrite that line with tensor operations on fixed shapes"
    else:
        problem, advice = "has no ONNX form", "replace the operator, or leave that part out of the export"
    reason = f"{what} has no ONNX form" if operator and program is not None else what
    if not operator or program is None:
        reason = f"the network {problem}: {reason}"
    return ExportError(f"{reason}{f' at {where}' if where else ''}; {advice}")


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _source(error: BaseException, text: str, program: torch.export.ExportedProgram | None) -> str | None:
    """Return "file:line: code" of the user's line, from the captured node, the message or the traceback."""
    node = _NODE.search(text)
    if node and program is not None:
        traces = [n.meta.get("stack_trace") for n in program.graph.nodes if n.name == node[1]]
        text = (traces[0] if traces else None) or text
    for file, line, code in reversed(_LINE.findall(text)):
        if not file.startswith(_TORCH):
            return f"{file}:{line}: {code.strip()}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((_TORCH, _OURS, "<")):
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return None
