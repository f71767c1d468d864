"""`fuse`: an equivalent network of which more can be pruned."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from billhook.errors import FusionError, InputError, suggest
from billhook.fuse.copies import ChannelCopy
from billhook.fuse.options import Fusion
from billhook.graph import ExampleInputs
from billhook.graph import inputs as example
from billhook.graph.capture import eval_mode
from billhook.graph.fusions import Kind, Refusal, Site, as_layers, as_record, passes, rewrite_at, tidy
from billhook.graph.inputs import Call
from billhook.graph.layers import LayeredNetwork, observe
from billhook.graph.verify import difference

TOLERANCE = 1e-5  # of the largest output
HALF = {torch.float16: 2e-2, torch.bfloat16: 5e-2}  # folded weights are rounded to what they were
ORDER = ("shortcut", "dense_shortcut", "concat", "batch_norm", "average_pool", "parallel", "activation")
"""Passes in the order in which they run; what one makes, the next may use."""
_CALIBRATION = 8  # batches at most that magnitudes of copies are taken from


@dataclass(frozen=True)
class Fused:
    """A rewritten network, and what has been done to it.

    Attributes:
        network: Plain layers; it computes what the original does and can be trained and pruned like it.
        held: Rewrites, as pairs (pass, place).
        refused: Places that were left as they are, as pairs (pass, place and why).
    """

    network: LayeredNetwork
    held: tuple[tuple[str, Site], ...]
    refused: tuple[tuple[str, Refusal], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "fused": [as_record(name, site) for name, site in self.held],
            "not_fused": [
                {"pass": n, "at": r.at, "operator": r.operator, "why": r.why} for n, r in self.refused
            ],
        }

    def __str__(self) -> str:
        lines = [f"{name}: {site.operator} at {site.at}" for name, site in self.held]
        lines += [f"{name}: not {r.operator} at {r.at}: {r.why}" for name, r in self.refused]
        return "\n".join(lines) or "nothing to fuse"


def fuse(
    model: nn.Module,
    example_inputs: ExampleInputs,
    fusion: Fusion | None = None,
    *,
    data: Iterable[Any] | None = None,
) -> Fused:
    """Return `model` rewritten so that more of it can be pruned; it computes the same.

    Every pass is checked: the network before and after it must agree on the example inputs. A pass that
    cannot prove its precondition leaves the place alone and says why. Weights are copied; train or prune the
    copy, then `lower` it. Takes a capture and a few forward passes.

    Args:
        model: Any network that can be captured; left as it is.
        example_inputs: One batch, as in `capture`.
        fusion: What may be rewritten; aggressive fusion of everything if not given.
        data: Batches (inputs, targets) or inputs, from which the size of copied channels is taken; else
            it is taken from the example inputs.
    Raises:
        CaptureError: if the network cannot be captured.
        InputError: for a pattern of blocks that matches nothing; names those that look like it.
        FusionError: if a pass changes what the network computes.
    """
    fusion = fusion or Fusion()
    call = example.as_call(example_inputs)
    network = as_layers(model, call)
    held: list[tuple[str, Site]] = []
    refused: list[tuple[str, Refusal]] = []
    if fusion.level == "aggressive":
        patterns = [p for p in (*fusion.include, *fusion.exclude) if p != "*"]
        known = _places(network, call, fusion) if patterns else set()
        held, refused = run_passes(network, call, fusion, "widen")
        if patterns:
            known |= {site.at for _, site in held} | _places(network, call, fusion)
            _check_patterns(patterns, known)
        measure_magnitudes(network, call, data)
        network.mark_whole()
    return Fused(network, tuple(held), tuple(refused))


def _settings(fusion: Fusion) -> dict[str, Any]:
    return {"add_form": fusion.add_form, "copies": fusion.copies, "keep_if": fusion.keep_if}


def _places(network: LayeredNetwork, call: Call, fusion: Fusion) -> set[str]:
    """Return all places that a widening pass rewrites or refuses, whatever the patterns say."""
    with eval_mode(network):
        observe(network, call)
    names = [name for name in ORDER if passes.get(name).kind == "widen"]
    return {found.at for name in names for found in passes.get(name).find(network, _settings(fusion))}


def _check_patterns(patterns: Sequence[str], places: set[str]) -> None:
    unknown = [
        f"fusion pattern {p!r} matches no place that could be fused{suggest(p, places)}"
        for p in patterns
        if not any(fnmatchcase(at, p) for at in places)
    ]
    if unknown:
        raise InputError("; ".join(unknown) + ("" if places else "; there are none in this network"))


def run_passes(
    network: LayeredNetwork, call: Call, fusion: Fusion, kind: Kind
) -> tuple[list[tuple[str, Site]], list[tuple[str, Refusal]]]:
    """Run all passes of a kind on `network`, in place; return what held and what was refused.

    Raises:
        FusionError: if a pass changes what the network computes.
    """
    held: list[tuple[str, Site]] = []
    settings = _settings(fusion)
    names = [name for name in ORDER if passes.get(name).kind == kind]
    with eval_mode(network):
        reference, expected = copy.deepcopy(network), observe(network, call)
        for name in names:
            done = len(held)
            while (site := _next(network, name, fusion, settings)) is not None:
                rewrite_at(network, name, site)
                held.append((name, replace(site, match=None)))
            if len(held) > done:
                tidy(network)
                check_same(f"pass {name!r}", held[done:], (reference, expected), network, call)
        # What one pass has refused, a later one may have rewritten.
        found = ((name, r) for name in names for r in passes.get(name).find(network, settings))
        refused = [(n, r) for n, r in found if isinstance(r, Refusal) and fusion.allows(r.operator, r.at)]
    return held, refused


def _next(network: LayeredNetwork, name: str, fusion: Fusion, settings: dict[str, Any]) -> Site | None:
    sites = (s for s in passes.get(name).find(network, settings) if isinstance(s, Site))
    return next((s for s in sites if fusion.allows(s.operator, s.at)), None)


def check_same(
    what: str,
    done: Sequence[tuple[str, Site]],
    before: tuple[LayeredNetwork, list[Any]],
    network: LayeredNetwork,
    call: Call,
) -> None:
    """Raise `FusionError` if `network` does not compute what the one before does.

    Args:
        what: Begins the message.
        done: Rewrites since then.
        before: The network before, and what it returns for `call`.
        network: The network after.
        call: Inputs.
    """
    got = observe(network, call)
    if _difference(before[1], got) <= 1:
        return
    if _difference(before[1], observe(before[0], call)) > 1:
        raise FusionError(
            "the network gives different results for the same inputs in eval mode, so no rewrite can be "
            "checked; make forward deterministic in eval mode"
        )
    # Rounding alone can be as large in deep networks: only double precision can tell.
    worst = _difference(_in_double(before[0], call), _in_double(network, call), like=got)
    if not worst <= 1:
        raise FusionError(
            f"{what} changes the result to {worst:.2g} times what rounding may, rewriting "
            f"{', '.join(s.at for _, s in done[:3]) or 'copies'}; exclude these blocks, and please report "
            "it: this is a fault in billhook, not in the network"
        )


def _difference(expected: Sequence[Any], got: Sequence[Any], like: Sequence[Any] = ()) -> float:
    """Return the largest difference of outputs over what is allowed; types of `like` say what that is."""
    worst = 0.0
    for a, b, typed in zip(expected, got, like or expected, strict=True):
        if not isinstance(a, Tensor) or not a.numel():
            continue
        error, scale = difference(a, b)
        allowed = HALF.get(typed.dtype, TOLERANCE) * max(scale, 1e-12)
        worst = max(worst, error / allowed if a.dtype == b.dtype else float("inf"))
    return worst


def _in_double(network: LayeredNetwork, call: Call) -> list[Any]:
    def widened(value: Tensor) -> Tensor:
        return value.double() if value.is_floating_point() else value

    return observe(copy.deepcopy(network).double(), pytree.tree_map_only(Tensor, widened, call))


def measure_magnitudes(network: LayeredNetwork, call: Call, data: Iterable[Any] | None = None) -> None:
    """Set what copies are judged by: the mean size of each copied channel on `data`, or on `call`."""
    layers = {
        m: torch.zeros(0) for m in network.modules() if isinstance(m, ChannelCopy) and m.magnitude is not None
    }
    batches = 0

    def collect(module: nn.Module, args: Any, output: Tensor) -> None:
        size = output.abs().mean([d for d in range(output.dim()) if d != 1])
        layers[module] = size if layers[module].numel() == 0 else layers[module] + size  # type: ignore[index]

    handles = [m.register_forward_hook(collect) for m in layers]
    try:
        with torch.no_grad(), eval_mode(network):
            for args, kwargs in _calls(call, data):
                try:
                    network(*args, **kwargs)
                except Exception as e:
                    raise InputError(
                        f"the network does not run on a batch of data ({type(e).__name__}); batches are "
                        "(inputs, targets), with inputs like the example inputs: a tensor, a tuple or a dict"
                    ) from e
                batches += 1
    finally:
        for handle in handles:
            handle.remove()
    if layers and not batches:
        raise InputError(
            "there is no batch in data, so copies cannot be judged; give some, or leave data out"
        )
    for layer, total in layers.items():
        assert layer.magnitude is not None
        layer.magnitude.copy_(total / batches)


def _calls(call: Call, data: Iterable[Any] | None) -> Iterable[Call]:
    if data is None:
        yield example.copied(call)
        return
    for batch in islice(data, _CALIBRATION):
        inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
        yield example.as_call(inputs)
