"""Networks written in one line, for tests of single operators.

net(lambda m, x: m.b(m.a(x).relu()), a=nn.Linear(3, 8), b=nn.Linear(8, 2))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from billhook.graph import ExampleInputs
from tests.oracle import CONSUMERS, prune_half, randomize


class Net(nn.Module):
    """Layers by name and a function that calls them."""

    def __init__(self, run: Callable[..., Any], layers: Mapping[str, Any]) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            if isinstance(layer, Tensor) and not isinstance(layer, nn.Parameter):
                self.register_buffer(name, layer)
            else:
                setattr(self, name, layer)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self, *args, **kwargs)


def net(run: Callable[..., Any], **layers: Any) -> Net:
    """Return a network in eval mode with random weights that matter."""
    return randomize(Net(run, layers).eval())  # type: ignore[return-value]


@dataclass(frozen=True)
class Case:
    """An operator inside a small network, and which groups come of it.

    Attributes:
        build: Makes the network; a function, so that nothing is built when tests are collected.
        inputs: One batch.
        sizes: Units of every prunable group.
        frozen: Groups that must not be prunable → a part of the reason.
        mixing, roles: See `tests.oracle.prune_half`.
    """

    build: Callable[[], nn.Module]
    inputs: ExampleInputs
    sizes: Mapping[str, int]
    frozen: Mapping[str, str]
    mixing: Literal["freeze", "allow"] = "freeze"
    roles: tuple[str, ...] = CONSUMERS


def case(
    build: Callable[[], nn.Module],
    inputs: ExampleInputs,
    frozen: Mapping[str, str] | None = None,
    mixing: Literal["freeze", "allow"] = "freeze",
    roles: tuple[str, ...] = CONSUMERS,
    **sizes: int,
) -> Case:
    """Return a `Case`; sizes by the name of the group."""
    return Case(build, inputs, sizes, frozen or {}, mixing, roles)


def check(one: Case) -> nn.Module:
    """Assert that the groups are as expected and that half of them can go; return the smaller network."""
    pruned = prune_half(one.build(), one.inputs, mixing=one.mixing, roles=one.roles)
    groups = pruned.graph.groups
    found = {g.id: g.size for g in groups.prunable}
    assert found == dict(one.sizes), [(g.id, g.size, str(g.frozen)) for g in groups]
    for name, text in one.frozen.items():
        assert groups[name].frozen is not None, f"{name} is prunable"
        assert text in str(groups[name].frozen)
    return pruned.small
