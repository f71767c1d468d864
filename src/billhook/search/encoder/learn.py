"""A search with an encoder, from the session to the policy that is kept for other networks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from billhook.search.agents.randomness import OwnRandomness
from billhook.search.encoder.decoder import DecoderPolicy, critic_of
from billhook.search.encoder.decoder_search import Evaluate, Noise, search_with_decoder
from billhook.search.encoder.decoder_training import DecoderTrainer, Schedule
from billhook.search.encoder.graphs import NetworkGraph
from billhook.search.encoder.network import EncoderName
from billhook.search.encoder.policy_file import load_policy, save_policy
from billhook.search.session import StopSearch
from billhook.search.space import Genes
from billhook.search.studies.trial import Trial

if TYPE_CHECKING:
    from billhook.search.encoder.policies_search import Proximal
    from billhook.search.session import Session

FILE = "policy.safetensors"
_LOG = logging.getLogger("billhook")


@dataclass(frozen=True)
class Decoding:
    """AGMC's agent: how its decoder is trained and explores."""

    schedule: Schedule
    noise: Noise


def learn(
    session: Session, agent: Decoding | Proximal, encoder: EncoderName, pretrained: str | None = None
) -> None:
    """Search until the trials are used up, and keep the policy in the session's folder.

    Global generators and the number of threads are left as they were.

    Args:
        session: The search.
        agent: What learns: `Decoding`, or `Proximal` for PPO.
        encoder: Which encoder.
        pretrained: A policy's file to begin with.
    Raises:
        StopSearch: in the end.
        StorageError: if `pretrained` does not fit, or the policy cannot be kept.
    """
    graph = NetworkGraph(session.space.graph, session.space.genes)
    own = OwnRandomness(session.seed)

    def evaluate(rows: Sequence[Genes]) -> list[Trial]:
        return own.outside(lambda: session.evaluate(rows))

    with own.inside():
        made = {"encoder": encoder, "agent": "ddpg" if isinstance(agent, Decoding) else "ppo"}
        modules = _modules(agent, encoder)
        if pretrained is not None:
            load_policy(pretrained, modules, made)
        try:
            _search(session, evaluate, agent, modules, graph)
        except StopSearch:
            path: Path = session.folder / FILE
            save_policy(path, modules, made)
            _LOG.info("the policy that agmc has learnt is in %s; give it as pretrained", path)
            raise


def _modules(agent: Decoding | Proximal, encoder: EncoderName) -> nn.ModuleDict:
    if isinstance(agent, Decoding):
        policy = DecoderPolicy(encoder)
        return nn.ModuleDict({"policy": policy, "critic": critic_of(policy)})
    from billhook.search.encoder.policies import GraphActor, GraphCritic

    return nn.ModuleDict({"policy": GraphActor(encoder), "critic": GraphCritic(encoder)})


def _search(
    session: Session,
    evaluate: Evaluate,
    agent: Decoding | Proximal,
    modules: nn.ModuleDict,
    graph: NetworkGraph,
) -> None:
    policy, critic, seed = modules["policy"], modules["critic"], session.seed
    if isinstance(agent, Decoding):
        assert isinstance(policy, DecoderPolicy)
        trainer = DecoderTrainer(policy, critic, graph, agent.schedule, seed)
        search_with_decoder(
            evaluate, session.costs, trainer, agent.noise, parallel=session.parallel, seed=seed
        )
        return
    from billhook.search.encoder.policies import GraphActor, GraphCritic
    from billhook.search.encoder.policies_search import search_with_ppo

    assert isinstance(policy, GraphActor)
    assert isinstance(critic, GraphCritic)
    search_with_ppo(
        evaluate, session.costs, policy, critic, graph, agent, parallel=session.parallel, seed=seed
    )
