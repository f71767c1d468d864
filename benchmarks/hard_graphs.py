#!/usr/bin/env python3
"""Small graphs with one hard construct each: half of all channels leave, and the result must be right.

    python benchmarks/hard_graphs.py                 # all; writes benchmarks/results/hard_graphs.jsonl
    python benchmarks/hard_graphs.py --only uneven_split --only dense

Right means: the smaller network runs, equals the silenced original (`verify`), and equals a copy of the
original whose consuming weights are zero (`tests/oracle.py`, which shares no code with billhook).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks import _hard_attention as attention  # noqa: E402
from benchmarks import _hard_convolutions as convolutions  # noqa: E402
from benchmarks import _hard_structures as structures  # noqa: E402
from billhook.graph import ExampleInputs, apply, capture, verify  # noqa: E402
from tests.oracle import CONSUMERS, EVERYTHING, compare, random_plan, randomize  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "hard_graphs.jsonl"
TOLERANCE = 1e-4


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def _image() -> ExampleInputs:
    return _normal(2, 3, 16, 16)


def _tokens() -> ExampleInputs:
    return _normal(2, 7, 6)


@dataclass(frozen=True)
class Case:
    """One graph.

    Attributes:
        build: Makes the network.
        inputs: Makes a batch.
        prunable: Layers whose channels must be prunable, at least in part.
        held: Layers whose channels must not be.
        roles: Members that the oracle zeroes (see `tests.oracle`).
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[], ExampleInputs] = _image
    prunable: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    roles: tuple[str, ...] = CONSUMERS


C, A, S = convolutions, attention, structures
CASES: dict[str, Case] = {
    "chunk_concat": Case(C.ChunkConcat, prunable=("stem.0", "first.0", "steps.1.1.0", "last.0")),
    "uneven_split": Case(C.UnevenSplit, prunable=("stem.0", "left.0", "right.0")),
    "add_slices": Case(C.AddSlices, prunable=("stem.0", "next.0")),
    "overlapping_slices": Case(C.OverlappingSlices, prunable=("stem.0", "next.0")),
    "strided_slice": Case(C.StridedSlice, prunable=("stem.0", "even.0", "odd.0")),
    "shuffle": Case(C.Shuffle, prunable=("stem.0", "one.0", "two.0")),
    "split_shuffle": Case(C.SplitShuffle, prunable=("stem.0", "branches.0.0.0", "branches.0.2.0")),
    "dense": Case(C.Dense, prunable=("stem.0", "convs.0", "convs.3")),
    "projection": Case(C.Projection, prunable=("stem.0", "inner.0", "outer")),
    "padded_shortcut": Case(C.PaddedShortcut, prunable=("stem.0", "inner.0", "outer")),
    "squeeze_excite": Case(C.SqueezeExcite, prunable=("stem.0", "squeeze", "excite")),
    "spatial_gate": Case(C.SpatialGate, prunable=("wide.0",), held=("narrow.0",)),
    "channel_convolution": Case(C.ChannelConvolution, prunable=("wide.0",), held=("narrow.0",)),
    "separable": Case(C.Separable, prunable=("stem.0", "depth.0", "point.0", "pairs", "last.0")),
    "few_groups": Case(C.FewGroups, prunable=("stem.0", "grouped.0")),
    "many_groups": Case(C.ManyGroups, prunable=("stem.0", "grouped.0", "last.0")),
    "unet": Case(C.UNet, prunable=("one.0", "three.0", "up2", "up1", "mid.0"), held=("out",)),
    "grouped_transposed": Case(C.GroupedTransposed, prunable=("stem.0", "grouped", "depth")),
    "pixel_shuffle": Case(C.PixelShuffle, prunable=("inner.0", "wide.0"), held=("last",)),
    "focus": Case(C.Focus, prunable=("stem.0", "first.0", "second.0")),
    "fused_projection": Case(A.FusedProjection, _tokens, ("embed", "qkv", "up")),
    "separate_projections": Case(A.SeparateProjections, _tokens, ("q", "k", "v")),
    "single_head": Case(A.SingleHead, _tokens, ("q", "k", "v"), roles=EVERYTHING),
    "fused_kernel": Case(A.FusedKernel, _tokens, ("q", "kv")),
    "grouped_query": Case(A.GroupedQuery, _tokens, ("q", "k", "v")),
    "multi_query": Case(A.MultiQuery, _tokens, ("q",)),
    "einsum_attention": Case(A.EinsumAttention, _tokens, ("q", "k", "v")),
    "cross_attention": Case(
        A.CrossAttention, lambda: (_normal(2, 7, 6), _normal(2, 4, 5)), ("left", "q", "out")
    ),
    "torch_attention": Case(A.TorchAttention, _tokens, ("embed", "attention", "up")),
    "torch_encoder": Case(
        A.TorchEncoder, _tokens, ("encoder.layers.0.self_attn", "encoder.layers.1.linear1"), held=("embed",)
    ),
    "layer_norm": Case(A.NormedWidths, _tokens, ("wide", "inner"), held=("embed", "narrow")),
    "gated": Case(A.Gated, _tokens, ("glu", "chunked", "gate", "value")),
    "lstm_beside": Case(A.RecurrentBeside, _tokens, ("one",), held=("two",)),
    "class_token": Case(A.TokenClass, prunable=("patches", "up", "down")),
    "tied_embedding": Case(
        A.Vocabulary, lambda: torch.arange(10).reshape(2, 5), ("table", "up"), roles=EVERYTHING
    ),
    "flatten_linear": Case(S.FlattenLinear, prunable=("features.0.0", "hidden"), held=("head",)),
    "concat_flatten": Case(S.ConcatFlatten, prunable=("a.0", "b.0")),
    "literal_view": Case(S.LiteralView, prunable=("stem.0", "inner.0", "outer.0")),
    "shared_layer": Case(S.SharedLayer, prunable=("stem.0", "again")),
    "siamese": Case(
        S.SharedBackbone, lambda: (_normal(2, 3, 8, 8), _normal(2, 3, 8, 8) + 1), ("backbone.0.0", "compare")
    ),
    "tied_weights": Case(S.TiedWeights, prunable=("stem.0", "one")),
    "turns": Case(S.Turns, prunable=("stem.0", "inner", "outer")),
    "stacked": Case(S.Stacked, prunable=("stem.0", "a.0", "mid")),
    "masked": Case(S.Masked, prunable=("stem.0", "a", "b")),
    "channel_mean": Case(S.ChannelMean, prunable=("wide.0",), held=("narrow.0",)),
    "channel_sum": Case(S.ChannelSum, prunable=("stem.0", "gate"), roles=EVERYTHING),
    "two_names": Case(S.TwoNames, prunable=("stem.0", "block.0.0")),
    "module_loop": Case(S.Loop, prunable=("stem.0", "ends.a.0")),
    "two_outputs": Case(S.TwoOutputs, prunable=("stem.0",), held=("next.0", "head", "mask")),
    "named_inputs": Case(
        S.NamedInputs,
        lambda: {"image": _normal(2, 3, 8, 8), "extra": _normal(2, 4)},
        ("image.0", "extra", "inner"),
    ),
    "weight_norm": Case(S.WeightNormed, prunable=("last.0",)),
    "weight_standardized": Case(S.WeightStandardized, prunable=("inner", "last.0")),
    "constants": Case(S.Constants, prunable=("inner",)),
    "slopes_and_shifts": Case(S.SlopesAndShifts, prunable=("stem.0", "inner")),
    "group_norm": Case(S.GroupNormed, prunable=("stem.0", "inner")),
    "volume": Case(S.Volume, lambda: _normal(2, 2, 5, 8, 8), ("one", "two", "time")),
}


@dataclass(frozen=True)
class Outcome:
    """What became of one graph.

    Attributes:
        verified: Relative error of `verify`; `agrees` and `exact` are its verdict.
        oracle, effect: Relative distances to and of the zeroed original.
        network: Class of the smaller network.
        prunable: Share of the units that could leave.
        wrongly: Layers that are prunable or held against expectation.
    """

    agrees: bool
    exact: bool
    verified: float
    oracle: float
    effect: float
    network: str
    prunable: float
    wrongly: tuple[str, ...]

    @property
    def right(self) -> bool:
        """True if the smaller network is what it must be."""
        good = self.agrees and self.exact and self.oracle <= TOLERANCE and self.effect > 10 * TOLERANCE
        return good and not self.wrongly


def run(case: Case, seed: int = 0) -> Outcome:
    """Prune half of everything that may leave and compare."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inputs = case.inputs()
        model = randomize(case.build().eval(), seed, inputs)
    graph = capture(model, inputs)
    plan = random_plan(graph, seed=seed)
    small = apply(model, plan)
    check = verify(model, plan, inputs, small=small)
    distance = compare(model, graph.groups, plan, small, inputs, case.roles)
    free = {m.tensor for g in graph.groups.prunable for m in g.members if m.role != "in"}
    wrongly = [n for n in case.prunable if not any(t.startswith(f"{n}.") for t in free)]
    wrongly += [n for n in case.held if f"{n}.weight" in free]
    units = sum(g.size for g in graph.groups)
    return Outcome(
        check.agrees, check.exact, check.max_rel_error, distance.error, distance.effect, type(small).__name__,
        sum(g.size for g in graph.groups.prunable) / max(units, 1), tuple(wrongly),
    )  # fmt: skip


def main() -> int:
    """Run the graphs and write one line each."""
    parser = argparse.ArgumentParser(description="half of all channels leave small hard graphs")
    parser.add_argument("--only", action="append", choices=sorted(CASES), help="a graph; may be repeated")
    chosen = parser.parse_args().only or list(CASES)
    torch.set_num_threads(1)
    logging.getLogger("billhook").setLevel(logging.ERROR)  # the class of each result is in its row
    rows = []
    for name in chosen:
        outcome = run(CASES[name])
        rows.append({
            "graph": name, "right": outcome.right, "verify_error": outcome.verified,
            "oracle_error": outcome.oracle,
            "effect": outcome.effect, "prunable_units": outcome.prunable, "network": outcome.network,
        })  # fmt: skip
        print(f"{name:22s} {'right' if outcome.right else f'WRONG {outcome}'}", file=sys.stderr)
    if len(chosen) == len(CASES):
        note = f"Half of all units of every prunable group removed; torch {torch.__version__}, float32, CPU."
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"note": note}]))
    return 0 if all(row["right"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
