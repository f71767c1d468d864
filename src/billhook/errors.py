"""Every error billhook raises on purpose.

    BillhookError
    ├── InputError            bad argument, name, shape or value (CLI exit code 2)
    │   ├── NameNotFoundError     unknown method, model, backend …; lists close names
    │   ├── ScopeError            a scope pattern matches nothing
    │   └── RecipeError           recipe file is wrong; has file and line
    ├── CaptureError          the network cannot be captured as a graph
    ├── PlanError             the plan is corrupted or belongs to another network
    ├── ApplyError            the smaller network could not be built
    ├── VerifyError           silence does not equal removal
    ├── FusionError           a rewrite changes what the network computes
    ├── BudgetError           no allowed plan meets the budget (exit code 3)
    ├── DivergedError         the loss became NaN or infinite
    ├── PenaltyError          a penalty of a sparse method diverges
    ├── DataError             a data set is missing or broken
    ├── StorageError          a saved network or run directory is broken
    ├── ExportError           a network cannot be exported or disagrees after export
    │   └── CompileError          billhook's own engine cannot run it
    │       ├── UnsupportedError      it has operators that the engine lacks; lists them
    │       └── TooLargeError         it computes more numbers than the engine can address
    ├── MeasureError          a timing run failed
    ├── EngineError           billhook's engine is not built, or has not enough memory
    └── MissingExtraError     an optional library is not installed; names the extra

A message says what is wrong, where, and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class BillhookError(Exception):
    """Base of all errors raised on purpose; the CLI prints its text without a traceback."""

    exit_code = 1

    def __reduce__(self) -> Any:
        """Let errors come back from other processes, whatever their constructors take."""
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(kind: type[BillhookError], args: tuple[Any, ...], state: dict[str, Any]) -> BillhookError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class InputError(BillhookError):
    """A wrong argument, name, shape or value."""

    exit_code = 2


class NameNotFoundError(InputError):
    """A name that is not known."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        super().__init__(f"unknown {kind} {name!r}{suggest(name, known)}")
        self.kind, self.name, self.known = kind, name, known


class ScopeError(InputError):
    """A scope pattern that matches no group, layer or tensor."""


class RecipeError(InputError):
    """A recipe that cannot be used; the message starts with file:line."""


class CaptureError(BillhookError):
    """A network that `torch.export` cannot turn into a graph."""


class PlanError(BillhookError):
    """A plan that is corrupted or was made for another network."""


class ApplyError(BillhookError):
    """A plan that could not be carried out."""


class VerifyError(BillhookError):
    """Silenced and smaller network disagree."""


class FusionError(BillhookError):
    """A rewrite that changes what the network computes."""


class BudgetError(BillhookError):
    """No allowed plan meets the budget; `reachable` holds the best value per metric."""

    exit_code = 3

    def __init__(self, message: str, reachable: dict[str, float] | None = None) -> None:
        super().__init__(message)
        self.reachable = dict(reachable or {})


class DivergedError(BillhookError):
    """The loss became NaN or infinite; the model holds the last weights that were known to be good."""

    def __init__(self, step: int, lr: float, loss: float, good_step: int) -> None:
        super().__init__(
            f"the loss is {loss} at step {step} (learning rate {lr:.4g}); the weights of step {good_step} "
            "were put back. Try a lower lr, clip=1.0, a longer warmup or precision='32-true', and look for "
            "NaN in the inputs"
        )
        self.step, self.lr, self.loss, self.good_step = step, lr, loss, good_step


class PenaltyError(BillhookError):
    """A penalty that drives weights away instead of towards what it stands for."""

    def __init__(self, tensor: str, step: int, strength: float, option: str) -> None:
        super().__init__(
            f"the penalty diverges at step {step}: {tensor!r} runs away under a strength of {strength:.3g}; "
            f"lower the option {option!r} or the learning rate. The last checkpoint, if any, was kept"
        )
        self.tensor, self.step, self.strength = tensor, step, strength


class DataError(BillhookError):
    """A data set that is missing or broken."""


class StorageError(BillhookError):
    """A saved network, artefact or run directory that cannot be read or written."""


class ExportError(BillhookError):
    """A network that cannot be exported, or whose export disagrees with it."""


class CompileError(ExportError):
    """A network that cannot be compiled for billhook's engine, or that a pass of the compiler breaks."""


class UnsupportedError(CompileError):
    """Operators that billhook's engine lacks; `operators` has their names."""

    def __init__(self, message: str, operators: Iterable[str]) -> None:
        super().__init__(message)
        self.operators = tuple(operators)


class TooLargeError(CompileError):
    """A network whose numbers do not fit into what billhook's engine addresses."""


class MeasureError(BillhookError):
    """A measurement that could not be taken."""


class EngineError(BillhookError):
    """billhook's own engine is not built, cannot be loaded, or gets too little memory."""


class MissingExtraError(BillhookError):
    """An optional library that is not installed."""

    def __init__(self, library: str, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the library {library!r}, which is not installed; "
            f'install it with: pip install "billhook[{extra}]"'
        )
        self.library, self.extra = library, extra


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a clause such as "; did you mean 'l2'?" or a list of all names when few are known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return "; did you mean " + " or ".join(repr(c) for c in close) + "?"
    if known and len(known) <= 30:
        return "; known: " + ", ".join(known)
    return ""
