"""`lower`: plain operators that compute what the fused network does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook import models
from billhook.errors import InputError
from billhook.fuse import ChannelCopy, Fusion, fuse, lower
from billhook.fuse._forms import FORMS, Form
from billhook.fuse.lower import has_copies, shortcuts
from billhook.graph import apply, capture, make_plan
from billhook.graph.fusions import as_layers
from billhook.graph.inputs import as_call
from billhook.graph.layers import LayeredNetwork
from tests.fused import distance, fused, fused_graph, operators, random_plan
from tests.networks import build
from tests.oracle import randomize
from tests.residual import residual

SHORTCUTS = ("basic", "bottleneck", "pre-activation", "functions", "squeeze")
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
WHOLE: dict[str, Callable[[], nn.Module]] = {
    **{name: lambda name=name: residual(name)[0] for name in SHORTCUTS},
    "resnet-20 A": lambda: residual("resnet-20")[0],
    "resnet-20 B": lambda: models.build("resnet-20", width=4, num_classes=5, shortcut="B").eval(),
    "mobilenet-v2": lambda: models.build("mobilenet-v2", width=0.25, num_classes=5).eval(),
    "concat": lambda: build("concat")[0],
    "plain": lambda: build("plain")[0],
}


def small_network(name: str, seed: int = 1, empty: float = 0.5) -> tuple[LayeredNetwork, Tensor]:
    """Return a pruned fused network and images."""
    network, x = fused(name)
    small = apply(network, random_plan(fused_graph(name), seed, empty=empty))
    assert isinstance(small, LayeredNetwork)
    return small, x


@pytest.mark.parametrize("name", WHOLE)
def test_a_network_that_lost_nothing_gets_its_operators_back(name: str) -> None:
    model = randomize(WHOLE[name](), 0, X)
    network = fuse(model, X).network
    original = as_layers(model, as_call(X))
    forms: tuple[Form, ...] = ("sum", "pointwise", "gather")
    for form in forms if name == "basic" else forms[-1:]:
        back = lower(network, X, forms=form, fold=())
        assert operators(back) == operators(original), form
        assert back.state_dict().keys() == original.state_dict().keys()
        assert distance(model, back, X) <= 1e-5
    assert capture(back, X).costs.cost().macs == capture(model, X).costs.cost().macs


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SHORTCUTS)
def test_every_form_computes_what_the_fused_network_does(name: str, form: Form) -> None:
    for seed, empty in ((1, 0.0), (2, 0.6)):
        small, x = small_network(name, seed, empty)
        lowered = lower(small, x, forms=form)
        assert not has_copies(lowered)
        assert has_copies(small)
        for batch in (x, x[:1], torch.cat((x, -x))):
            assert distance(small, lowered, batch) <= 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_a_form_for_each_block(form: Form) -> None:
    small, x = small_network("resnet-20", empty=0.0)
    found = shortcuts(small, x)
    assert set(found) <= {f"stages.{s}.{b}" for s in range(3) for b in range(3)}
    assert len(found) > 5  # a few of four channels all stay
    assert all(shape[0] > 0 and len(shape) == 4 for shape in found.values())
    chosen = {block: FORMS[i % 4] for i, block in enumerate(found)} | {"stages.0.0": form}
    assert distance(small, lower(small, x, forms=chosen), x) <= 1e-5


def test_shortcuts_without_a_choice_are_not_listed() -> None:
    network, x = fused("basic")
    assert shortcuts(network, x) == {}
    graph = fused_graph("basic")
    small = apply(network, make_plan(graph, {"layer1.0.copies": np.arange(8) < 3}))
    assert isinstance(small, LayeredNetwork)
    assert [*shortcuts(small, x)] == ["layer1.0"]
    small = apply(network, make_plan(graph, {"layer1.0.copies": np.zeros(8)}))
    assert isinstance(small, LayeredNetwork)
    assert shortcuts(small, x) == {}


def test_a_shortcut_of_which_nothing_is_left_takes_the_sum_with_it() -> None:
    network, x = fused("basic")
    small = apply(network, make_plan(fused_graph("basic"), {"layer1.1.copies": np.zeros(8)}))
    lowered = lower(small, x, fold=())
    assert (
        operators(lowered).count("add")
        == operators(as_layers(residual("basic")[0], as_call(x))).count("add") - 1
    )
    assert distance(small, lowered, x) <= 1e-5


def test_a_block_that_is_gone_leaves_no_operator() -> None:
    network, x = fused("basic")
    small = apply(network, make_plan(fused_graph("basic"), {"layer1.1.conv1": np.zeros(8)}))
    lowered = lower(small, x, fold=())
    assert not [n for n, _ in lowered.named_modules() if n.startswith("layer1.1")]
    before = operators(as_layers(residual("basic")[0], as_call(x)))
    assert len(operators(lowered)) == len(before) - 7  # two convolutions and norms, two ReLUs, one sum
    assert distance(small, lowered, x) <= 1e-5


def test_copies_of_channels_that_are_gone_and_no_branch_give_zeros() -> None:
    network, x = fused("basic")
    first, none = np.arange(8) < 4, np.zeros(8)
    keep = {"layer1.0.conv2": first, "layer1.1.copies": ~first, "layer1.1.conv1": none}
    small = apply(network, make_plan(fused_graph("basic"), keep))
    for form in FORMS:
        assert distance(small, lower(small, x, forms=form), x) <= 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_factors_that_training_put_on_channels_survive(form: Form) -> None:
    network, x = fused("basic")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, ChannelCopy):
                module.gate.uniform_(0.3, 1.5, generator=generator)
                module.gate[2] = 0
    small = apply(network, random_plan(fused_graph("basic"), 4, empty=0.3))
    for one in (network, small):
        lowered = lower(one, x, forms=form)
        assert not has_copies(lowered)
        assert distance(one, lowered, x) <= 1e-5


def test_parameters_are_folded_unless_that_is_not_wanted() -> None:
    small, x = small_network("basic")
    assert "BatchNorm2d" not in operators(lower(small, x))
    assert "BatchNorm2d" in operators(lower(small, x, fold=()))


def test_networks_that_were_never_fused_are_folded_only() -> None:
    model, x = residual("basic")
    lowered = lower(model, x)
    assert operators(lowered).count("add") == 3
    assert "BatchNorm2d" not in operators(lowered)
    assert distance(model, lowered, x) <= 1e-5


def test_the_given_network_is_left_as_it_is() -> None:
    small, x = small_network("basic")
    small.train()
    before, code = copy.deepcopy(small.state_dict()), small.code
    lowered = lower(small, x, forms="concat")
    assert small.training
    assert not lowered.training
    assert small.code == code
    torch.testing.assert_close(small.state_dict(), before, rtol=0, atol=0)
    with torch.no_grad():
        for parameter in lowered.parameters():
            parameter.zero_()
    torch.testing.assert_close(small.state_dict(), before, rtol=0, atol=0)


def test_wrong_forms_and_blocks_are_named() -> None:
    small, x = small_network("basic", empty=0.0)
    with pytest.raises(InputError, match=r"form 'dense' of 'layer1\.0': expected one of sum, pointwise"):
        lower(small, x, forms={"layer1.0": "dense"})  # type: ignore[dict-item]
    with pytest.raises(InputError, match=r"no block 'layer9' with copies; there are layer1\.0"):
        lower(small, x, forms={"layer9": "gather"})
    with pytest.raises(InputError, match="no block 'a' with copies; there are none"):
        lower(build("plain")[0], x, forms={"a": "gather"})
    with pytest.raises(InputError, match="expected one of sum"):
        lower(small, x, forms="dense")  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"include": ("layer1.*",)}, {"operators": ("add_projection",)}])
def test_networks_that_are_fused_in_part(options: dict[str, tuple[str, ...]]) -> None:
    model, x = residual("basic")
    network = fuse(model, x, Fusion(**options)).network
    small = apply(network, random_plan(capture(network, x), 3))
    for form in FORMS:
        assert distance(small, lower(small, x, forms=form), x) <= 1e-5


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("form", FORMS)
def test_other_precisions(form: Form) -> None:
    model, x = residual("basic")
    network = fuse(model.double(), x.double()).network
    small = apply(network, random_plan(capture(network, x.double()), 3))
    lowered = lower(small, x.double(), forms=form)
    assert {p.dtype for p in lowered.parameters()} == {torch.float64}
    assert distance(small, lowered, x.double()) <= 1e-12
    small, x = small_network("basic")
    with default_dtype(torch.float64):  # weights take their type from the network
        lowered = lower(small, x, forms=form)
    assert {p.dtype for p in lowered.parameters()} == {torch.float32}


@pytest.mark.parametrize("forms", ["foo", {"layer1.0": "foo"}, {"layer9.0": "sum"}])
def test_forms_are_checked_even_where_none_is_needed(forms: Any) -> None:
    network, x = fused("basic")
    with pytest.raises(InputError, match=r"foo|layer9"):
        lower(network, x, forms=forms)
