"""AGMC's policy: an LSTM goes from layer to layer and says how much of each stays."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from billhook.search.encoder.graphs import NetworkGraph
from billhook.search.encoder.network import Embedding, EncoderName, make_encoder

Choose = Callable[[Tensor, int], Tensor]


class DecoderPolicy(nn.Module):
    """Encoder, decoder and actor; none of them depends on how many layers there are.

    The first state is the network's embedding. At gene t the decoder is in state s_t, the actor reads it with
    the embedding e_t of the gene's layers and says the ratio a_t; s_{t+1} = ReLU(Linear([h_t; a_t]))
    where h_t = LSTM([e_t; a_t]) goes on from the network's embedding.

    Args:
        encoder: "plain" or "hierarchical".
        hidden: Width of the actor's two layers.

    References:
        Yu, Mazaheri, Jannesari, "Auto Graph Encoder-Decoder for Neural Network Pruning", ICCV 2021.
        arXiv:2011.12641.
    Differs from the source:
        There, decoder and actor read s_t alone: they know a layer only by having counted, and what is learnt
        on twelve layers does not fit thirty. The LSTM reads e_t and a_t instead of s_t, which is made of its
        own state and an action: so one call takes it through an episode whose actions are known. The actor's
        layers are 64 wide instead of 300: an update takes a third of the time and teaches as much.
    """

    def __init__(self, encoder: EncoderName = "plain", hidden: int = 64) -> None:
        super().__init__()
        self.encoder = make_encoder(encoder)
        size = self.encoder.size
        self.cell = nn.LSTM(size + 1, size, batch_first=True)
        self.join = nn.Linear(size + 1, size)
        self.actor = perceptron(2 * size, hidden)

    @property
    def width(self) -> int:
        """Of what actor and critic read: a state and an embedding."""
        return 2 * self.encoder.size

    def embed(self, graph: NetworkGraph) -> Embedding:
        """Return the embedding of the network that loses nothing; one row."""
        embedding: Embedding = self.encoder(graph, torch.ones(1, graph.genes))
        return embedding

    def states(self, embedding: Embedding, actions: Tensor) -> Tensor:
        """Return what the actor reads before each action of some episodes; [episodes, genes, width]."""
        of_genes = embedding.genes.expand(len(actions), -1, -1)
        first = embedding.whole.expand(len(actions), -1)
        before = torch.cat([of_genes, actions[..., None]], dim=2)[:, :-1]
        start = first[None].contiguous()
        hidden = self.cell(before, (start, torch.zeros_like(start)))[0]
        after = self.join(torch.cat([hidden, actions[:, :-1, None]], dim=2)).relu()
        return torch.cat([torch.cat([first[:, None], after], dim=1), of_genes], dim=2)

    def act(self, embedding: Embedding, episodes: int, choose: Choose) -> Tensor:
        """Return the actions of some episodes; [episodes, genes].

        Args:
            embedding: Of the network.
            episodes: How many.
            choose: Gets the actor's ratios [episodes] and the gene's number, returns what is done.
        """
        state = embedding.whole.expand(episodes, -1)
        memory = state[None].contiguous(), torch.zeros(1, episodes, state.shape[1])
        actions: list[Tensor] = []
        for t in range(embedding.genes.shape[1]):
            of_gene = embedding.genes[:, t].expand(episodes, -1)
            actions.append(choose(self.ratio(torch.cat([state, of_gene], dim=1)), t))
            action = actions[-1][:, None]
            hidden, memory = self.cell(torch.cat([of_gene, action], dim=1)[:, None], memory)
            state = self.join(torch.cat([hidden[:, 0], action], dim=1)).relu()
        return torch.stack(actions, dim=1)

    def ratio(self, states: Tensor) -> Tensor:
        """Return the part of a layer that should stay, from 0 to 1; [...] of [..., width]."""
        said: Tensor = self.actor(states).squeeze(-1).sigmoid()
        return said


def critic_of(policy: DecoderPolicy, hidden: int = 64) -> nn.Sequential:
    """Return a new critic: what the actor reads and its action → a number."""
    return perceptron(policy.width + 1, hidden)


def perceptron(inputs: int, hidden: int, outputs: int = 1) -> nn.Sequential:
    """Return two hidden layers with ReLU and an output layer, small enough that outputs begin near zero."""
    layers = [nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)]
    nn.init.uniform_(layers[-1].weight, -3e-3, 3e-3)
    nn.init.zeros_(layers[-1].bias)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
