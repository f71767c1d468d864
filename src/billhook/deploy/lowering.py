"""`lower_by_cost`: a fused network in the plain form that is measured to be fastest."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from billhook.deploy.exporter import export, usual_form
from billhook.deploy.plan_latency import export_for_timing
from billhook.fuse._forms import Form
from billhook.fuse.fuse import fuse
from billhook.fuse.lower import lower, shortcuts
from billhook.fuse.options import FOLDING, Fusion
from billhook.graph import ExampleInputs, capture
from billhook.graph.layers import LayeredNetwork
from billhook.measure.rig import LatencyRig
from billhook.measure.rounds import QUICK, Timing
from billhook.results import Cost

log = logging.getLogger("billhook")

# "sum" last: where channels are missing it is what "pointwise" is, and nothing is timed twice.
_TRIED: tuple[Form, ...] = ("pointwise", "gather", "concat", "sum")
_BETTER = 0.99  # of the time: what timing of one network can tell from the other


@dataclass(frozen=True)
class Lowered:
    """A network in its plain form, and why it has it.

    Attributes:
        network: Plain layers and operators.
        forms: Block → form of its shortcut, for the shortcuts that have a choice.
        ratios: Forms that were measured, written as text → time relative to the first of them, which is
            the backend's usual form if it is allowed.
    """

    network: LayeredNetwork
    forms: Mapping[str, Form]
    ratios: Mapping[str, float]


def lower_by_cost(
    network: nn.Module,
    example_inputs: ExampleInputs,
    *,
    backend: str = "onnxruntime",
    threads: int = 1,
    fusion: Fusion | None = None,
    timing: Timing = QUICK,
    fits: Callable[[Cost], bool] | None = None,
) -> Lowered:
    """Return `network` lowered so that it runs fastest on `backend`.

    Shortcuts that are whole become sums again, those that are gone vanish; see `billhook.fuse.lower`. For the
    others each form is measured in the runtime, in turns with the backend's usual one: first one form for
    all, then other forms for all shortcuts over images of one size. That takes an export and about
    2 seconds each; a network whose shortcuts are all whole or gone takes none.

    Args:
        network: A fused network, as `apply` returns it.
        example_inputs: One batch.
        backend: Runtime to measure.
        threads: Threads of the runtime.
        fusion: Which parameters to fold; `keep_if="always"` takes the dense form everywhere and measures
            nothing.
        timing: Length and number of turns.
        fits: Whether a lowered network is small enough. Convolutions that copy channels have multiplications
            and parameters of their own; forms that `fits` refuses are not taken. Look-ups of channels
            ("gather") cost neither, so they are always allowed.
    Raises:
        ExportError, MeasureError, MissingExtraError: if a form cannot be exported or timed.
    """
    fusion = fusion or Fusion()
    fold = tuple(o for o in FOLDING if o in fusion.operators) if fusion.level != "none" else ()
    layers = (
        network
        if isinstance(network, LayeredNetwork)
        else fuse(network, example_inputs, Fusion("none")).network
    )
    blocks = shortcuts(layers, example_inputs)
    choice = _Choice(layers, example_inputs, fold, fits)
    usual = usual_form(backend)
    if fusion.keep_if == "always" or not blocks:
        form = choice.first("concat", usual) if fusion.keep_if == "always" else choice.first(usual)
        return Lowered(choice.lowered(form), dict.fromkeys(blocks, form), {})
    with tempfile.TemporaryDirectory(prefix="billhook-", ignore_cleanup_errors=True) as folder:
        race = _Race(choice, backend, replace(timing, threads=threads), Path(folder))
        forms, ratios = race.run(blocks, choice.first(usual))
    return Lowered(choice.lowered(forms), forms, ratios)


@dataclass(frozen=True)
class _Choice:
    network: LayeredNetwork
    example_inputs: ExampleInputs
    fold: tuple[str, ...]
    fits: Callable[[Cost], bool] | None

    def lowered(self, forms: Form | Mapping[str, Form]) -> LayeredNetwork:
        return lower(self.network, self.example_inputs, forms=forms, fold=self.fold)

    def allows(self, lowered: LayeredNetwork) -> bool:
        return self.fits is None or self.fits(capture(lowered, self.example_inputs).costs.cost(None))

    def first(self, *wanted: Form) -> Form:
        """Return the first form that is allowed for all shortcuts; "gather" always is."""
        free = self.fits is None
        allowed = (f for f in wanted if free or f == "gather" or self.allows(self.lowered(f)))
        return next(allowed, "gather")


@dataclass
class _Race:
    choice: _Choice
    backend: str
    timing: Timing
    folder: Path
    seen: set[tuple[object, ...]] = field(default_factory=set)

    def run(
        self, blocks: Mapping[str, tuple[int, ...]], start: Form
    ) -> tuple[dict[str, Form], dict[str, float]]:
        """Return the fastest forms found, and what was measured."""
        best: dict[str, Form] = dict.fromkeys(blocks, start)
        ratios: dict[str, float] = {start: 1.0}
        first = self._lowered(best)
        assert first is not None
        artifact, inputs, timing = export_for_timing(
            first,
            self.choice.example_inputs,
            self.folder / start,
            backend=self.backend,
            timing=self.timing,
        )
        with LatencyRig(artifact, timing) as rig:
            lowest = 1.0

            def challenge(forms: dict[str, Form], label: str) -> None:
                nonlocal best, lowest
                lowered = self._lowered(forms)
                if lowered is None:
                    return
                if not self.choice.allows(lowered):
                    log.info("shortcuts as %s: larger than the budget allows", label)
                    return
                target = self.folder / f"form-{len(self.seen)}"
                exported = export(lowered, inputs, target, backend=self.backend, purpose="timing")
                ratio = rig.relative_latency(exported).ratio
                log.info("shortcuts as %s: %.1f %% of the time", label, 100 * ratio)
                ratios[label] = ratio
                if ratio < _BETTER * lowest:
                    best, lowest = forms, ratio

            for form in _TRIED:
                challenge(dict.fromkeys(blocks, form), form)
            sizes = sorted({shape[2:] for shape in blocks.values()}, reverse=True)
            for size in sizes if len(sizes) > 1 else ():
                inside = [b for b, shape in blocks.items() if shape[2:] == size]
                for form in _TRIED:
                    where = "×".join(str(s) for s in size)
                    challenge(best | dict.fromkeys(inside, form), f"{form} at {where}")
        return best, ratios

    def _lowered(self, forms: Mapping[str, Form]) -> LayeredNetwork | None:
        """Return the network in these forms, None if it is one that has been seen: not all can be had."""
        lowered = self.choice.lowered(forms)
        shapes = ((name, tuple(t.shape)) for name, t in lowered.state_dict().items())
        key = (lowered.code, *shapes)
        if key in self.seen:
            return None
        self.seen.add(key)
        return lowered
