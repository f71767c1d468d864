"""All passes in a row, and the check that each computes what was computed before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook.compile.ir import Affine, Convolution, Network
from billhook.compile.lower import lower
from billhook.compile.passes import PASSES, run_passes
from billhook.errors import CompileError
from tests import networks
from tests.unit.compile.exactness import Function, assert_equal, image, kinds


def test_a_residual_network_is_left_with_convolutions() -> None:
    model, x = networks.build("residual")
    network = run_passes(lower(model, x))
    assert kinds(network) == ["convolution"] * 6 + ["mean", "linear"]
    assert sum(len(op.inputs) == 2 for op in network) == 2
    assert_equal(network, model, x)


def test_all_passes_have_names() -> None:
    assert [rewrite.__name__ for rewrite in PASSES] == [
        "merge_select",
        "fold_padding",
        "before_rearranging",
        "share_equal",
        "name_activations",
        "through_select",
        "fold_affine",
        "merge_parallel",
        "fold_affine",
        "move_scales",
        "fuse_activation",
        "fuse_residual",
        "drop_unused",
    ]


def forgetful(network: Network) -> Network:
    """Forgets the bias of convolutions."""
    return network.with_ops(
        [replace(op, bias=0 * op.bias) if isinstance(op, Convolution) else op for op in network]
    )


def test_a_pass_that_breaks_the_network_is_named() -> None:
    network = lower(nn.Conv2d(4, 3, 2), image())
    with pytest.raises(CompileError, match="'forgetful' changes output 'output'"):
        run_passes(network, passes=(*PASSES, forgetful))
    assert not run_passes(network, check=False, passes=(forgetful,)).ops[0].bias.any()  # type: ignore[attr-defined]


def test_a_pass_that_changes_nothing_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from billhook.compile import reference

    runs: list[Network] = []
    real = reference.run

    def counted(network: Network, *arguments: object) -> object:
        runs.append(network)
        return real(network, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(reference, "run", counted)
    run_passes(lower(nn.Conv2d(4, 3, 2), image()))
    assert len(runs) == 1


def test_passes_leave_the_network_that_they_are_given() -> None:
    model, x = networks.build("depthwise_squeeze")
    network = lower(model, x)
    before = kinds(network)
    weights = [op.weight.copy() for op in network if isinstance(op, Convolution)]
    run_passes(network)
    assert kinds(network) == before
    kept = [op.weight for op in network if isinstance(op, Convolution)]
    assert all(np.array_equal(a, b) for a, b in zip(weights, kept, strict=True))


def test_zeros_of_weights_stay_zeros() -> None:
    def forward(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        return norm(conv(x * 3)).relu()

    model = Function(forward, nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)).eval()
    with torch.no_grad():
        model.layers[0].weight[:, ::2] = 0
    (op,) = run_passes(lower(model, image()))
    assert isinstance(op, Convolution)
    assert not op.weight[:, ::2].any()
    assert op.weight[:, 1::2].all()


def test_a_network_that_makes_infinite_numbers_passes() -> None:
    network = lower(Function(lambda x: (x * 2).relu() / (x * 0)), image())
    assert any(isinstance(op, Affine) for op in network)
    run_passes(network)
