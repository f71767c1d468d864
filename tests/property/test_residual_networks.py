"""Any residual network that is made of known blocks can be fused, pruned channel by channel and lowered."""

from __future__ import annotations

import random

import torch
from hypothesis import HealthCheck, given, settings

from billhook.fuse import Fusion, fuse, lower
from billhook.fuse._forms import FORMS
from billhook.fuse.lower import has_copies, shortcuts
from billhook.graph import apply, capture, verify
from billhook.graph.layers import LayeredNetwork
from tests.fused import distance, operators, random_plan
from tests.oracle import randomize
from tests.property.residual_networks import RESIDUALS, Network, Residual

TOLERANCE = 1e-5
SHORTCUTS = Fusion(operators=("add_identity", "add_projection"))


@settings(max_examples=8, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(RESIDUALS)
def test_a_random_residual_network_is_fused_pruned_and_lowered(description: Residual) -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(description.seed))
    model = randomize(Network(description).eval(), description.seed, x)
    made = fuse(model, x, SHORTCUTS)
    network = made.network
    assert len(made.held) == sum(map(len, description.stages)), made.refused
    assert distance(model, network, torch.cat((x, -x))) <= TOLERANCE
    assert operators(lower(network, x, fold=())) == operators(fuse(model, x, Fusion(level="none")).network)

    plan = random_plan(capture(network, x), description.seed, empty=0.3)
    small = apply(network, plan)
    assert isinstance(small, LayeredNetwork)
    check = verify(network, plan, x, small=small)
    assert check.agrees, check

    draw = random.Random(description.seed)
    forms = {block: draw.choice(FORMS) for block in shortcuts(small, x)}
    lowered = lower(small, x, forms=forms)
    assert not has_copies(lowered)
    assert distance(small, lowered, torch.cat((x, -x))) <= TOLERANCE
