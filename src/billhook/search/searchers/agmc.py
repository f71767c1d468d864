"""AGMC and GNN-RL: an agent that sees the network as a graph, and can be taken along to another network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from billhook.errors import InputError
from billhook.options import Flag, Number, OneOf, OrAuto, OrNone, Text, option
from billhook.registry import Info
from billhook.search.searcher import Searcher

if TYPE_CHECKING:
    from billhook.search.encoder.network import EncoderName
    from billhook.search.problem import SearchProblem
    from billhook.search.session import Session

INFO = Info(
    "an agent that sees the network as a graph; its policy fits other networks, too",
    "Yu et al., AGMC, ICCV 2021, arXiv:2011.12641; GNN-RL, ICML 2022, arXiv:2102.03214",
)

_WARMUP, _SHARE = 25, 4  # episodes, and at most a quarter of the trials
_SIGMA, _TRUSTED_SIGMA = 0.5, 0.2


@dataclass(frozen=True)
class AGMC(Searcher):
    """Graph encoder and agent, trained together.

    encoder="plain" with agent="ddpg" is AGMC: a graph convolution, then an LSTM that goes from gene to gene.
    encoder="hierarchical" with agent="ppo" is GNN-RL: two stages of graph networks, and one action for all
    genes. The agent says how what has to leave is shared out; how much that is follows from the budget, so
    every candidate keeps it and uses it up (see `billhook.search.encoder.rays`).

    At its end the search keeps the policy as policy.safetensors in the folder of the study and logs where.
    `pretrained` begins with such a file, whatever network it was trained on.

    References:
        Yu, Mazaheri, Jannesari, "Auto Graph Encoder-Decoder for Neural Network Pruning", ICCV 2021,
        arXiv:2011.12641; the same, "Topology-Aware Network Pruning using Multi-stage Graph Embedding and
        Reinforcement Learning", ICML 2022, arXiv:2102.03214.
    Differs from the source:
        Encoders are trained, features of nodes are not drawn anew for every graph, embeddings of a batch are
        its own, actions put no channels back, and critics are not squashed. Candidates are not fine-tuned.
    """

    libraries: ClassVar[tuple[str, ...]] = ("torch_geometric", "gymnasium", "stable_baselines3")

    encoder: str = option("plain", OneOf("plain", "hierarchical"), "graph that the agent sees")
    agent: str = option("ddpg", OneOf("ddpg", "ppo"), "what learns")
    pretrained: str | None = option(None, OrNone(Text()), "file of a policy to begin with")
    freeze_encoder: bool = option(False, Flag(), "the encoder stays as it is")
    lr: float | str = option("auto", OrAuto(1e-6, 1), "step size; 'auto' is 1e-3 with ddpg, 3e-4 with ppo")
    warmup: int | str = option(
        "auto",
        OrAuto(0, integer=True),
        "ddpg: random episodes first; 'auto' is 25, at most a quarter of the trials, 0 if pretrained",
    )
    sigma: float | str = option(
        "auto", OrAuto(0, 1), "ddpg: first deviation of ratios; 'auto' is 0.5, or 0.2 if pretrained"
    )
    decay: float = option(0.97, Number(0, 1), "ddpg: factor on the deviation from episode to episode")
    least_sigma: float = option(0.1, Number(0, 1), "ddpg: the deviation does not fall below")
    updates: int = option(4, Number(1, 100, integer=True), "ddpg: updates after each episode")
    trace: float = option(1.0, Number(0, 1), "ddpg: λ of the targets")
    std: float = option(0.5, Number(0.01, 2), "ppo: deviation of actions")
    batch: int = option(20, Number(2, integer=True), "ppo: steps of an update")
    epochs: int = option(10, Number(1, 100, integer=True), "ppo: passes over them")
    steps: int = option(5, Number(1, 100, integer=True), "ppo: most steps of an episode")

    def check(self, problem: SearchProblem) -> None:
        """Refuse a search without a budget: where nothing has to leave, there is nothing to share out."""
        if problem.budget is None:
            raise InputError("the searcher 'agmc' needs a budget: give one, such as macs=0.5")
        if self.freeze_encoder and self.pretrained is None:
            raise InputError("freeze_encoder=True needs a pretrained encoder: give pretrained=FILE")

    def run(self, session: Session) -> None:
        """Learn until the trials are used up, and keep the policy."""
        from billhook.search.encoder.learn import Decoding, learn

        encoder, trusted = cast("EncoderName", self.encoder), self.pretrained is not None
        if self.agent == "ppo":
            from billhook.search.encoder.policies_search import Proximal

            proximal = Proximal(
                lr=_given(self.lr, 3e-4),
                std=self.std,
                epochs=self.epochs,
                batch=self.batch,
                steps=self.steps,
                freeze_encoder=self.freeze_encoder,
            )
            learn(session, proximal, encoder, self.pretrained)
            return
        from billhook.search.encoder.decoder_search import Noise
        from billhook.search.encoder.decoder_training import Schedule

        usual = 0 if trusted else min(_WARMUP, session.planned // _SHARE)
        noise = Noise(
            warmup=round(_given(self.warmup, usual)),
            sigma=_given(self.sigma, _TRUSTED_SIGMA if trusted else _SIGMA),
            decay=self.decay,
            least=self.least_sigma,
            trusted=trusted,
        )
        lr = _given(self.lr, 1e-3)
        schedule = Schedule(
            lr, lr, updates=self.updates, trace=self.trace, freeze_encoder=self.freeze_encoder
        )
        learn(session, Decoding(schedule, noise), encoder, self.pretrained)


def _given(value: float | str, otherwise: float) -> float:
    return otherwise if isinstance(value, str) else value


ENTRY = AGMC
