"""AGMC's search: episodes of the decoder, candidates at the edge of the budget, updates after each round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from billhook.search.agents.exploration import truncated_normal
from billhook.search.costs import SearchCosts
from billhook.search.encoder.decoder_training import DecoderTrainer
from billhook.search.encoder.rays import at_budget
from billhook.search.space import Floats, Genes
from billhook.search.studies.trial import Trial

Evaluate = Callable[[Sequence[Genes]], Sequence[Trial]]
_LEAST = 0.01  # that an action takes away: candidates are on the way to where all genes are at their lowest
_ENOUGH = 8  # episodes from which something can be learnt


@dataclass(frozen=True)
class Noise:
    """How far episodes stray from the policy.

    Attributes:
        warmup: Episodes at the start with ratios drawn evenly.
        sigma: Standard deviation of ratios in the first episode after that.
        decay: Factor on it from each episode to the next.
        least: It does not fall below this.
        trusted: The policy has learnt before: the very first episode is its own, without noise.
    """

    warmup: int
    sigma: float = 0.5
    decay: float = 0.97
    least: float = 0.1
    trusted: bool = False

    def of(self, episode: int) -> float | None:
        """Return the standard deviation in an episode, None for ratios drawn evenly."""
        if episode < self.warmup:
            return None
        if self.trusted and episode == 0:
            return 0.0
        return max(self.least, self.sigma * self.decay ** (episode - self.warmup))


def search_with_decoder(
    evaluate: Evaluate, costs: SearchCosts, trainer: DecoderTrainer, noise: Noise, *, parallel: int, seed: int
) -> None:
    """Evaluate what the policy and its noise come up with, and train it, until `evaluate` raises.

    The reward is -(1 - accuracy), at an episode's end. What is learnt from are the ratios that the candidate
    really has.

    Args:
        evaluate: What candidates are worth.
        costs: With limits.
        trainer: Holds the policy.
        noise: How far episodes stray from it.
        parallel: Episodes that are judged together.
        seed: Of the noise.
    """
    rng, episode, unlearnt = np.random.default_rng([seed, 1]), 0, 0
    while True:
        sigmas = [noise.of(episode + i) for i in range(parallel)]
        ratios = _ratios(trainer, sigmas, rng)
        rows = [candidate(costs, r) for r in ratios.double().numpy()]
        trials = evaluate(rows)
        real = torch.from_numpy(costs.space.fractions(np.stack(rows))).float()
        trainer.add(real[: len(trials)], np.array([t.accuracy - 1 for t in trials]))
        episode, unlearnt = episode + parallel, unlearnt + parallel
        if episode >= max(noise.warmup, _ENOUGH):  # then from all of the warm-up at once
            trainer.learn(unlearnt)
            unlearnt = 0


def candidate(costs: SearchCosts, ratios: Floats) -> Genes:
    """Return the candidate that loses channels in proportion to 1 - ratios [genes]."""
    return at_budget(costs, np.ones(len(ratios)), np.maximum(1 - ratios, _LEAST))


@torch.no_grad()
def _ratios(trainer: DecoderTrainer, sigmas: Sequence[float | None], rng: np.random.Generator) -> Tensor:
    """Return ratios [episodes, genes]: drawn evenly, or around what the policy says."""
    policy, graph, episodes = trainer.policy, trainer.graph, len(sigmas)
    drawn = rng.random((episodes, graph.genes))
    even = np.array([s is None for s in sigmas])
    widths = np.array([s or 0.0 for s in sigmas])

    def choose(said: Tensor, gene: int) -> Tensor:
        near = truncated_normal(said.double().numpy(), widths, drawn[:, gene])
        return torch.from_numpy(np.where(even, drawn[:, gene], near)).float()

    return policy.act(policy.embed(graph), episodes, choose)
