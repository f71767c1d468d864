"""Every network of the zoo: sizes, shapes, arguments."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from billhook.errors import InputError, NameNotFoundError
from billhook.models import build, models, parse_arguments
from billhook.models._arguments import signature

# For colour images and ten classes. Computed from the tables of the papers; those round them to
# 0.27 M and 0.85 M and 1.7 M (He et al., table 6) and to 1.0 M (Huang et al., table 2). MobileNetV2 has
# the number of torchvision's; VGG-16 the 14.71 M of its convolutions, norms and one linear layer. LeNet-5 has
# 430,500 weights for grey images, 1,000 more for colour, and 580 biases.
PARAMETERS = {
    "densenet-40": 1_019_722,
    "lenet-5": 432_080,
    "mobilenet-v2": 2_236_682,
    "resnet-8": 75_290,
    "resnet-20": 269_722,
    "resnet-56": 853_018,
    "resnet-110": 1_727_962,
    "small-vgg": 242_474,
    "vgg-16-bn": 14_724_042,
}
NARROW = {
    "densenet-40": {"growth": 2, "stem": 3},
    "lenet-5": {"channels": [4, 6, 8]},
    "mobilenet-v2": {"width": 0.1},
    "small-vgg": {"channels": [4, 6, 8, 8]},
    "vgg-16-bn": {"channels": [2] * 13},
    **{f"resnet-{depth}": {"width": 2} for depth in (8, 20, 56, 110)},
}


def narrow(name: str, image: int) -> dict[str, object]:
    """Return arguments that make a network small, for images of this size."""
    return {**NARROW[name], **({"image": image} if "image" in signature(name) else {})}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_zoo_is_complete() -> None:
    assert set(models.names()) == set(PARAMETERS) == set(NARROW)


@pytest.mark.parametrize("name", models.names())
def test_parameters_are_the_published_number(name: str) -> None:
    with torch.device("meta"):  # sizes only
        assert parameters(build(name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("size", [28, 32])
def test_images_become_scores(name: str, size: int) -> None:
    model = build(name, in_channels=1, num_classes=7, **narrow(name, size))

    assert model(torch.zeros(2, 1, size, size)).shape == (2, 7)


@pytest.mark.parametrize("name", models.names())
def test_the_same_seed_gives_the_same_network(name: str) -> None:
    torch.manual_seed(3)
    first = build(name, **NARROW[name]).state_dict()
    torch.manual_seed(3)
    second = build(name, **NARROW[name]).state_dict()

    assert all(first[key].equal(second[key]) for key in first)


@pytest.mark.parametrize("name", models.names())
def test_an_untrained_network_keeps_its_signal(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, **narrow(name, 32))

    output = model(torch.randn(8, 3, 32, 32))

    assert output.isfinite().all()
    assert 1e-4 < output.std() < 10


@pytest.mark.parametrize("name", models.names())
def test_every_entry_is_documented(name: str) -> None:
    text = str(getattr(models.get(name), "func", models.get(name)).__doc__)

    assert models.info(name).title
    assert all(f"        {argument}" in text or f", {argument}" in text for argument in signature(name))


@pytest.mark.parametrize("name", models.names())
def test_wrong_channels_are_refused(name: str) -> None:
    for channels in ([1], "32", [0] * 50, 5):
        with pytest.raises(InputError, match="channels must be a list of"):
            build(name, channels=channels)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet-20", {"width": 0}, "width must be a positive integer, not 0"),
        ("resnet-20", {"width": True}, "width must be a positive integer"),
        ("resnet-20", {"shortcut": "C"}, "shortcut must be 'A'"),
        ("resnet-20", {"channels": [32, 16, 64]}, "must not fall"),
        ("resnet-20", {"channels": [32, 16.0, 64]}, r"channels\[1\] must be a positive integer"),
        ("vgg-16-bn", {"num_classes": "ten"}, "num_classes"),
        ("mobilenet-v2", {"width": 0}, "multiplier"),
        ("mobilenet-v2", {"dropout": 1}, "dropout"),
        ("densenet-40", {"growth": -1}, "growth"),
        ("lenet-5", {"image": 7}, "at least 8 pixels"),
    ],
)
def test_values_out_of_range_are_refused(name: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(name, **arguments)


def test_unknown_names_and_arguments_list_close_ones() -> None:
    with pytest.raises(NameNotFoundError, match="unknown model 'resnet20'; did you mean 'resnet-20'"):
        build("resnet20")
    with pytest.raises(
        NameNotFoundError, match="argument of resnet-20 'stemstride'; did you mean 'stem_stride'"
    ):
        build("resnet-20", stemstride=2)
    with pytest.raises(NameNotFoundError, match="'depth'"):
        build("resnet-20", depth=8)


def test_names_are_understood_with_underscores() -> None:
    assert models.get("resnet_8") is models.get("resnet-8")


def test_arguments_of_the_command_line_are_literals_or_text() -> None:
    items = [
        "width=32",
        "channels=[1, 2]",
        "shortcut=B",
        "stem-stride=2",
        "flag=True",
        "text='a=b'",
        "none=None",
    ]

    assert parse_arguments(items) == {
        "width": 32,
        "channels": [1, 2],
        "shortcut": "B",
        "stem_stride": 2,
        "flag": True,
        "text": "a=b",
        "none": None,
    }
    assert parse_arguments(["code=__import__('os').getcwd()"]) == {"code": "__import__('os').getcwd()"}
    assert parse_arguments([]) == {}


@pytest.mark.parametrize("item", ["width", "=3", "a b=3", "1x=3"])
def test_arguments_that_cannot_be_read_are_refused(item: str) -> None:
    with pytest.raises(InputError, match="write it as name=value"):
        parse_arguments([item])
    with pytest.raises(InputError, match="twice"):
        parse_arguments(["a=1", "a=2"])
