"""How a recipe says what is searched, by what, and where the trials are kept."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from billhook.errors import InputError
from billhook.options import rules
from billhook.recipe.table import Plain, Table, as_value_error, one_of
from billhook.search import searchers
from billhook.search.problem import Settings

STUDY = "search.db"


class Search(Table):
    """A search; what candidates are and how one is judged is said by `billhook.search.problem.Settings`.

    `method` is a searcher, `options` are its own. Every trial is kept in `study`, a file or the URL of a data
    base, under `name`. `workers` are processes here, `ray` is the address of a cluster that evaluates in
    their place. `parallel` says how many candidates are asked for at once; a searcher that learns from each
    batch asks for others with another one, so it stays what it was when the search began.
    """

    method: Annotated[str, one_of("searcher", searchers.names)] = "amc"
    options: dict[str, Plain] = Field(default={})
    trials: int = Field(default=200, ge=1)
    study: str = Field(default=STUDY, min_length=1)
    name: str = Field(default="search", min_length=1)
    workers: int = Field(default=1, ge=1)
    ray: str | None = Field(default=None, min_length=1)
    parallel: int | None = Field(default=None, ge=1)
    channels: bool = True
    lowest: float = 0.125
    pattern: str | None = None
    least_density: float = 0.1
    criterion: str = "l1"
    repair: str = "both"
    images: int = 2000
    calibration: int = 512
    metric: str | None = None
    latency: str = "auto"

    @field_validator("*")
    @classmethod
    def _within_rule(cls, value: Any, info: ValidationInfo) -> Any:
        rule = rules(Settings).get(str(info.field_name))
        if rule is not None and not rule.accepts(value):
            raise ValueError(f"must be {rule}, found {value!r}")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Search:
        as_value_error(self._check)
        return self

    def to_settings(self) -> Settings:
        """Return what candidates are and how one is judged."""
        return Settings(**{name: getattr(self, name) for name in Settings.__dataclass_fields__})

    def _check(self) -> None:
        if not self.channels and self.pattern is None:
            raise InputError("there is nothing to search: let channels be searched, or give a pattern")
