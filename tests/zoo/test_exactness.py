"""Known networks, half of whose channels leave: what `benchmarks/exactness.py` measures, as tests.

`make zoo` runs the whole list; a few small networks at low resolution run with the other tests.
"""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from benchmarks._zoo import NETWORKS, Network
from benchmarks.exactness import OUTPUT, TOLERANCE, Outcome, measure

LEAST = 0.9
MIXES = ("mixes channels", "statistics are taken over this dimension")
# Networks in which every channel passes through an operator that mixes (global response norm, standardised
# weights).
ALL_MIXED = {"timm/convnextv2_atto", "timm/resnetv2_50x1_bit"}


def assert_right(outcome: Outcome, vacuous: bool = False) -> None:
    """Assert that the result is exact, and that nearly all channels could leave or pass a mixing operator."""
    assert outcome.exact, outcome
    assert outcome.verify_error <= TOLERANCE
    assert outcome.oracle_error <= TOLERANCE
    assert vacuous or outcome.effect > 1e-3, "the removed channels do not matter to the output"
    cover = outcome.coverage
    mixed = sum(n for reason, n in cover.frozen.items() if reason.endswith(MIXES))
    inner = cover.total - cover.frozen.get(OUTPUT, 0)
    assert (cover.prunable + mixed) / inner >= LEAST, cover


def assert_allowed(outcome: Outcome) -> None:
    """Assert that the network agrees when mixing is allowed, and that nearly all channels may leave then."""
    assert outcome.agrees, outcome
    assert outcome.coverage.inner_share >= LEAST, outcome.coverage


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.name)
def test_half_of_a_known_network_leaves(network: Network, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(network.name.partition("/")[0])  # skips where the library is not installed
    assert_right(measure(network), vacuous=network.name in ALL_MIXED)
    assert_allowed(measure(network, "allow"))


def _small(torchvision: ModuleType) -> dict[str, Network]:
    models = torchvision.models
    options = {"weights": None, "num_classes": 10}
    built = {
        "resnet18": lambda: models.resnet18(**options),
        "mobilenet_v3_small": lambda: models.mobilenet_v3_small(**options),
        "shufflenet_v2_x0_5": lambda: models.shufflenet_v2_x0_5(**options),
        "densenet": lambda: models.DenseNet(8, (2, 3), 16, num_classes=10),
        "vit": lambda: models.VisionTransformer(48, 12, 2, 2, 32, 64, num_classes=10),
        "swin": lambda: models.SwinTransformer([4, 4], 24, [1, 2], [2, 4], [3, 3], num_classes=10),
    }
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, 48, 48, generator=generator)
    return {name: Network(name, build, lambda: image) for name, build in built.items()}


@pytest.mark.zoo
@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "densenet", "vit", "swin"]
)
def test_half_of_a_small_network_leaves(name: str, torchvision: ModuleType) -> None:
    network = _small(torchvision)[name]
    assert_right(measure(network))
    if name in ("vit", "swin"):
        assert_allowed(measure(network, "allow"))
