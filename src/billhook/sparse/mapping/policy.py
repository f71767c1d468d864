"""Search-based mapping: a policy that learns by REINFORCE which pattern every layer should get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, prod
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from billhook.errors import InputError
from billhook.sparse.mapping.environment import environment as make_environment
from billhook.sparse.mapping.mapping import Mapping
from billhook.sparse.mapping.problem import Actions, MappingProblem, Trial

if TYPE_CHECKING:
    import gymnasium

Subject: TypeAlias = "MappingProblem | gymnasium.Env[Any, Any]"
OnTrial = Callable[[int, Trial], None]
_SHARED_LR = 0.05  # of the GRU, relative to the table's; at the same one, all layers drift to one option
_REPEATS = 10  # episodes per evaluation: most samples of a policy that has settled come up again
_TRIES = 100  # random mappings drawn for one that is new, before giving up


@dataclass(frozen=True)
class SearchResult:
    """What a search has found.

    Attributes:
        best: The best mapping that was evaluated, with its accuracy, latency and reward.
        history: The reward of every episode, in order.
        evaluations: How many different mappings were evaluated.
    """

    best: Trial
    history: tuple[float, ...]
    evaluations: int

    @property
    def mapping(self) -> Mapping:
        """The best."""
        return self.best.mapping

    @property
    def reward(self) -> float:
        """Of the best mapping."""
        return self.best.reward


class Policy(nn.Module):
    """Which option a layer gets, given those before it: a GRU over observations, and a table per layer.

    Args:
        size: Of an observation.
        layers: Of the network.
        actions: The most options of a layer.
        exploration: Probability with which any option is taken, each as likely as the others.
        hidden: Width of the GRU.
    """

    def __init__(
        self, size: int, layers: int, actions: int, exploration: float = 0.0, hidden: int = 32
    ) -> None:
        super().__init__()
        self.exploration, self.hidden = exploration, hidden
        self.cell = nn.GRUCell(size, hidden)
        self.head = nn.Linear(hidden, actions)
        # The GRU sees what layers have in common, the table what sets one apart. Both start from equal odds.
        self.table = nn.Parameter(torch.zeros(layers, actions))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, layer: int, observation: Tensor, mask: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probability of every option of a layer and the GRU's next state."""
        state = self.cell(observation[None], state)
        logits = (self.head(state)[0] + self.table[layer]).masked_fill(~mask, -torch.inf)
        odds = (1 - self.exploration) * logits.softmax(0) + self.exploration * mask / mask.sum()
        return odds, state


def search(
    subject: Subject,
    *,
    evaluations: int | None = None,
    episodes: int | None = None,
    seed: int = 0,
    lr: float = 0.1,
    entropy: float = 0.01,
    exploration: float = 0.05,
    decay: float = 0.9,
    on_trial: OnTrial | None = None,
) -> SearchResult:
    """Return the best mapping that a policy comes across while it learns by REINFORCE.

    After every episode, ∇ Σ log π(a) · (R - b) / σ with the moving average b of the rewards and σ of their
    deviation from it, and a bonus for entropy. The same seed gives the same search.

    Args:
        subject: The problem, or an environment of it.
        evaluations: Stop after this many different mappings.
        episodes: How many mappings to sample at most; one that comes up again is not evaluated again. By
            default ten times `evaluations`. One of the two must be given.
        seed: Of the policy's first weights and of the samples.
        lr: Of Adam, for the tables; the GRU's is a twentieth of it.
        entropy: Weight of the policy's mean entropy per layer.
        exploration: Probability with which a layer gets any of its options. Without it, a policy that has
            settled samples the same mapping for ever.
        decay: Of the moving averages.
        on_trial: Called with the episode and the trial, after each.
    Raises:
        InputError: for a value out of range.
        MissingExtraError: if gymnasium is not installed.
    References:
        Williams, "Simple statistical gradient-following algorithms", Machine Learning 1992 (REINFORCE).
        Gong et al., 2022, arXiv:2111.11581 (search-based mapping; reconstructed).
    Differs from the source:
        The advantage is divided by its moving deviation, so that rewards may have any scale; the policy has a
        table of logits per layer beside the GRU, which learns faster: with 20 layers of 8 options whose
        worths add up and 60 evaluations, the GRU alone hardly beat random search (10 seeds).
    """
    _require_counts(episodes=episodes, evaluations=evaluations)
    if episodes is None:
        if evaluations is None:
            raise InputError("give evaluations, episodes or both: when shall the search stop?")
        episodes = _REPEATS * evaluations
    if not 0 < lr < inf or not 0 <= entropy < inf:
        raise InputError(f"lr={lr!r} must be above 0 and entropy={entropy!r} at least 0")
    if not 0 <= decay < 1 or not 0 <= exploration < 1:
        raise InputError(f"decay={decay!r} and exploration={exploration!r} must be at least 0 and below 1")
    generator = torch.Generator().manual_seed(seed)
    environment = make_environment(subject) if isinstance(subject, MappingProblem) else subject
    counts = _problem_of(subject).counts
    size = len(environment.reset()[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = Policy(size, len(counts), max(counts), exploration)
    shared = [p for name, p in policy.named_parameters() if name != "table"]
    groups = [{"params": [policy.table], "lr": lr}, {"params": shared, "lr": _SHARED_LR * lr}]
    optimizer = torch.optim.Adam(groups)
    found = _Found(on_trial)
    baseline = deviation = 0.0
    for episode in range(episodes):
        trial, taken, logs, spread = _episode(environment, policy, generator)
        found.add(taken, trial)
        if evaluations is not None and len(found.seen) >= evaluations:
            break
        if episode == 0:
            baseline = trial.reward
        advantage = trial.reward - baseline
        deviation = abs(advantage) if deviation == 0 else decay * deviation + (1 - decay) * abs(advantage)
        baseline = decay * baseline + (1 - decay) * trial.reward
        scale = advantage / deviation if deviation > 0 else 0.0
        loss = -scale * torch.stack(logs).sum() - entropy * torch.stack(spread).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return found.result()


def random_search(
    subject: Subject,
    *,
    evaluations: int,
    seed: int = 0,
    on_trial: OnTrial | None = None,
) -> SearchResult:
    """Return the best of so many different mappings drawn at random: what a search has to beat.

    Raises:
        InputError: for a number of evaluations below 1.
    """
    _require_counts(evaluations=evaluations)
    problem = _problem_of(subject)
    generator = torch.Generator().manual_seed(seed)
    found = _Found(on_trial)
    tries = 0
    while len(found.seen) < min(evaluations, prod(problem.counts)) and tries < _TRIES * evaluations:
        tries += 1
        actions = tuple(int(torch.randint(n, (), generator=generator)) for n in problem.counts)
        if actions not in found.seen:
            found.add(actions, problem.trial(actions))
    return found.result()


class _Found:
    """The trials of one search."""

    def __init__(self, on_trial: OnTrial | None) -> None:
        self.on_trial = on_trial
        self.seen: set[Actions] = set()
        self.history: list[float] = []
        self.best: Trial | None = None

    def add(self, actions: Actions, trial: Trial) -> None:
        self.seen.add(actions)
        self.history.append(trial.reward)
        if self.best is None or trial.reward > self.best.reward:
            self.best = trial
        if self.on_trial is not None:
            self.on_trial(len(self.history) - 1, trial)

    def result(self) -> SearchResult:
        assert self.best is not None  # at least one episode
        return SearchResult(self.best, tuple(self.history), len(self.seen))


def _episode(
    environment: gymnasium.Env[Any, Any], policy: Policy, generator: torch.Generator
) -> tuple[Trial, Actions, list[Tensor], list[Tensor]]:
    """Return the trial, the actions, their log probabilities, and the entropy at every layer."""
    observation, info = environment.reset()
    state = torch.zeros(1, policy.hidden)
    actions: list[int] = []
    logs: list[Tensor] = []
    entropies: list[Tensor] = []
    ended = False
    while not ended:
        mask = torch.from_numpy(info["action_mask"]).bool()
        odds, state = policy(len(actions), torch.from_numpy(observation), mask, state)
        action = int(torch.multinomial(odds.detach(), 1, generator=generator))
        actions.append(action)
        logs.append(odds[action].log())
        legal = odds[mask]  # the logarithm of the others' zeros has no gradient
        entropies.append(-(legal * legal.clamp_min(1e-30).log()).sum())
        observation, _, ended, _, info = environment.step(action)
    return info["trial"], tuple(actions), logs, entropies


def _problem_of(subject: Subject) -> MappingProblem:
    if isinstance(subject, MappingProblem):
        return subject
    problem = getattr(subject.unwrapped, "problem", None)
    if not isinstance(problem, MappingProblem):
        raise InputError("the environment is not one of billhook.sparse.mapping.environment(problem)")
    return problem


def _require_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            raise InputError(f"{name}={count!r} must be a whole number of at least 1")
