"""The optional libraries that a search needs: said at once, and all by one check."""

from __future__ import annotations

from importlib.util import find_spec

from billhook.errors import MissingExtraError

# Import name -> what pip calls it, and the extra that brings it.
LIBRARIES = {
    "optuna": ("optuna", "search"),
    "stable_baselines3": ("stable-baselines3", "search"),
    "gymnasium": ("gymnasium", "search"),
    "torch_geometric": ("torch-geometric", "search"),
    "ray": ("ray", "ray"),
    "pg8000": ("pg8000", "postgres"),
}


def require(*libraries: str, what: str) -> None:
    """Raise if one of the libraries is not installed; none of them is imported.

    Args:
        libraries: Their import names, keys of `LIBRARIES`.
        what: What needs them, for the message: "the searcher 'amc'".
    Raises:
        MissingExtraError: names the first one that is missing, and its extra.
    """
    for library in libraries:
        name, extra = LIBRARIES[library]
        if find_spec(library) is None:
            raise MissingExtraError(name, extra, what)
