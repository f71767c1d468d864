"""What the tables of a recipe have in common: no unknown keys, checks with our own messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from billhook.errors import BillhookError, NameNotFoundError

Plain = bool | int | float | str | list[bool | int | float | str] | dict[str, bool | int | float | str]
Texts = Annotated[tuple[str, ...], Field(strict=False)]


class Table(BaseModel):
    """A table of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def one_of(kind: str, names: Callable[[], Iterable[str]]) -> AfterValidator:
    """Return a check that a name is known; names are listed without importing what they stand for."""

    def check(name: str) -> str:
        known = list(names())
        if name not in known:
            raise ValueError(str(NameNotFoundError(kind, name, known)))
        return name

    return AfterValidator(check)


def as_value_error(check: Callable[[], object]) -> None:
    """Run `check`; pydantic collects `ValueError`s only, so ours become one."""
    try:
        check()
    except BillhookError as e:
        raise ValueError(str(e)) from None
