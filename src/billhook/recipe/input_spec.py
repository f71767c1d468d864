"""Example inputs as people write them: "1x3x224x224", "1x16:int64", "1x16:int64<30522", "mask=1x16:bool"."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from billhook.errors import InputError, suggest

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
MAX_ELEMENTS = 2**30

_FORM = re.compile(
    r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d+(?:x\d+)*)(?::(?P<dtype>\w+))?(?:<(?P<below>\d+))?"
)


@dataclass(frozen=True)
class InputSpec:
    """One input of the model's forward.

    Attributes:
        shape: Shape of the tensor, batch first.
        dtype: Name of a torch dtype.
        below: Integer inputs are made of values below this, so that every index is valid.
        name: Keyword of the forward; "" for a positional argument.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    below: int = 1
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> InputSpec:
        """Return the input written as [NAME=]SHAPE[:DTYPE][<LIMIT].

        Raises:
            InputError: if the text, the dtype or the size is not understood.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise InputError(
                f"cannot read input {text!r}; write a shape such as 1x3x224x224, with a dtype if it is not "
                "float32 (1x16:int64), the vocabulary size for indices (1x16:int64<30522)"
            )
        shape = tuple(int(n) for n in match["shape"].split("x"))
        dtype = match["dtype"] or "float32"
        if dtype not in DTYPES:
            raise InputError(f"input {text!r}: unknown dtype {dtype!r}{suggest(dtype, DTYPES)}")
        if not all(shape) or math.prod(shape) > MAX_ELEMENTS:
            raise InputError(
                f"input {text!r}: sizes must be positive and hold at most {MAX_ELEMENTS} elements"
            )
        return cls(shape, dtype, int(match["below"] or 1), match["name"] or "")


def parse_inputs(texts: tuple[str, ...]) -> tuple[InputSpec, ...]:
    """Return all inputs; either all are named (keyword arguments) or none is.

    Raises:
        InputError: as `InputSpec.parse`, or if named and unnamed inputs are mixed.
    """
    specs = tuple(InputSpec.parse(t) for t in texts)
    names = [s.name for s in specs if s.name]
    if names and (len(names) != len(specs) or len(set(names)) != len(names)):
        raise InputError("give every input a different name (NAME=SHAPE), or none of them a name")
    return specs
