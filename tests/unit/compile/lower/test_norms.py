"""Layer norm over any dimensions, group norm and instance norm."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from billhook.compile.lower import lower
from billhook.errors import UnsupportedError
from tests.unit.compile.exactness import Function, features, image, kinds, lowered


def uneven(model: nn.Module) -> nn.Module:
    """Return the model with scales and shifts that do not hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        nn.init.uniform_(p, 0.5, 1.5, generator=generator)
    return model


class ChannelsLast(nn.LayerNorm):
    """Layer norm of the channels at every pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """Permute, normalise, permute."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_layer_norm_of_channels_is_one_operator() -> None:
    assert kinds(lowered(uneven(ChannelsLast(4)), image())) == ["norm"]


SHAPES = {"rows": [5], "planes": [6, 5], "samples": [4, 6, 5]}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm_of_images(name: str, affine: bool) -> None:
    norm = nn.LayerNorm(SHAPES[name], elementwise_affine=affine)
    lowered(uneven(norm), image())


@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 3, 6), (1, 6)])
def test_layer_norm_of_the_last_dimension(shape: tuple[int, ...]) -> None:
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    lowered(uneven(nn.LayerNorm(6, eps=0.1)), x)


@settings(max_examples=25)
@given(groups=st.sampled_from([1, 2, 3, 6]), height=st.integers(1, 7), width=st.integers(1, 7))
def test_group_norm(groups: int, height: int, width: int) -> None:
    lowered(uneven(nn.GroupNorm(groups, 6)), image(6, height, width))


def test_group_norm_of_a_vector_and_of_a_sequence() -> None:
    assert kinds(lowered(uneven(nn.GroupNorm(2, 6)), features(6))) == ["norm"]
    assert kinds(lowered(uneven(nn.GroupNorm(2, 4)), image()[:, :, 0])) == ["norm"]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("tracked", [True, False])
def test_instance_norm(affine: bool, tracked: bool) -> None:
    norm = nn.InstanceNorm2d(4, affine=affine, track_running_stats=tracked)
    if tracked:
        nn.init.uniform_(norm.running_mean, -1, 1)  # type: ignore[arg-type]
        nn.init.uniform_(norm.running_var, 0.1, 2)  # type: ignore[arg-type]
    assert kinds(lowered(uneven(norm), image())) == ["affine" if tracked else "norm"]


OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "behind a shuffle": lambda x: functional.group_norm(functional.channel_shuffle(x, 2), 2),
    "of a slice": lambda x: functional.group_norm(x[:, 1:3], 2),
    "of a joint": lambda x: functional.layer_norm(torch.cat([x, 2 * x], 1), [8, 6, 5]),
    "of channels of tokens": lambda x: functional.layer_norm(x.flatten(2).transpose(1, 2), [4]),
    "of parts of channels": lambda x: functional.layer_norm(x.permute(0, 2, 3, 1).unflatten(3, (2, 2)), [2]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_norms_of_views(name: str) -> None:
    lowered(OTHERS[name], image())


def test_a_norm_over_a_part_of_the_pixels_and_channels_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="part of the pixels"):
        lower(Function(lambda x: functional.layer_norm(x.permute(0, 2, 3, 1), [5, 4])), image())
