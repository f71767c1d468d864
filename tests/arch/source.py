"""The source files of billhook, parsed: what the tests in this folder look at."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "src" / "billhook"
_STUDY = ("studies/storage", "studies/study", "studies/trial_log", "studies/trial_table")
_SAMPLERS = ("searchers/tpe", "searchers/nsga2")
_AGENTS = ("search/agents/*", "search/encoder/policies*.py")
# Import name of each optional library -> the files that may import it; "*" stands for anything.
PLACES = {
    "onnx": ("deploy/onnx.py",),
    "onnxscript": ("deploy/onnx.py",),
    "onnxruntime": ("deploy/backends/onnxruntime_.py",),
    "openvino": ("deploy/backends/openvino_.py",),
    "lightning_fabric": ("train/fabric.py",),
    "plotly": ("report/plotlyjs.py",),
    "sklearn": ("data/digits.py",),
    "PIL": ("data/_image_files.py",),
    "gymnasium": ("sparse/mapping/environment.py", *_AGENTS),
    "stable_baselines3": _AGENTS,
    "torch_geometric": ("search/encoder/*",),
    "optuna": tuple(f"search/{name}.py" for name in (*_STUDY, *_SAMPLERS)),
    "sqlalchemy": tuple(f"search/{name}.py" for name in _STUDY),
    "ray": ("search/workers/ray_.py",),
    "pg8000": (),  # only by name, in a URL
}
OPTIONAL = tuple(PLACES)


@dataclass(frozen=True)
class Source:
    """One Python file of the package.

    Attributes:
        name: Path below src/billhook, with "/".
        text: Its content.
        tree: Its syntax tree.
    """

    name: str
    text: str
    tree: ast.Module


@cache
def sources() -> tuple[Source, ...]:
    """Return every Python file of the package, sorted by name."""
    paths = sorted(PACKAGE.rglob("*.py"))
    texts = [(path.relative_to(PACKAGE).as_posix(), path.read_text()) for path in paths]
    return tuple(Source(name, text, ast.parse(text, name)) for name, text in texts)


def imports(tree: ast.AST, *, inside_functions: bool = True) -> set[str]:
    """Return the top-level packages that `tree` imports at run time.

    `import_module("name")` counts; imports under `if TYPE_CHECKING` do not. Without `inside_functions`, only
    what is imported together with the file.
    """
    found: set[str] = set()
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                nodes.extend(node.orelse)
                continue
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda() if not inside_functions:
                continue
            case ast.Import():
                found |= {alias.name.split(".")[0] for alias in node.names}
            case ast.ImportFrom(module=str(module), level=0):
                found.add(module.split(".")[0])
            case ast.Call(
                func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                found.add(module.split(".")[0])
        nodes.extend(ast.iter_child_nodes(node))
    return found


def optional_imports(source: Source, *, inside_functions: bool = True) -> set[str]:
    """Return the optional libraries that a file imports."""
    return imports(source.tree, inside_functions=inside_functions) & set(OPTIONAL)


def may_import(source: Source, library: str) -> bool:
    """Tell if a file is one of the places of an optional library."""
    return any(fnmatch(source.name, place) for place in PLACES[library])
