from __future__ import annotations

import pytest

from billhook.errors import InputError
from billhook.recipe import InputSpec, parse_inputs


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("1x3x224x224", InputSpec((1, 3, 224, 224))),
        ("1x16:int64", InputSpec((1, 16), "int64")),
        ("1x16:int64<30522", InputSpec((1, 16), "int64", 30522)),
        ("mask=2x16:bool", InputSpec((2, 16), "bool", name="mask")),
        ("8", InputSpec((8,))),
    ],
)
def test_inputs_are_read(text: str, spec: InputSpec) -> None:
    assert InputSpec.parse(text) == spec


@pytest.mark.parametrize("text", ["", "3,224", "1x", "x3", "1x-3", "1x3:", "a b=1x3", "1x3<"])
def test_what_is_no_shape_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match="1x3x224x224"):
        InputSpec.parse(text)


def test_an_unknown_dtype_has_a_suggestion() -> None:
    with pytest.raises(InputError, match="unknown dtype 'floaat32'; did you mean 'float32'"):
        InputSpec.parse("1x3:floaat32")


@pytest.mark.parametrize("text", ["1x0", "100000x100000x100000"])
def test_absurd_sizes_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="must be positive and hold at most"):
        InputSpec.parse(text)


@pytest.mark.parametrize("texts", [("a=1x3", "1x3"), ("a=1x3", "a=1x4")])
def test_names_are_given_to_all_inputs_or_to_none(texts: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="different name"):
        parse_inputs(texts)
