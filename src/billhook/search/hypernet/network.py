"""`PruningNet`: a network whose weights are generated from the widths that it has at the moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from billhook.graph import ExportedNetwork, make_plan
from billhook.graph.layers import put
from billhook.search.hypernet.encoding import encodings
from billhook.search.hypernet.generator import FactorisedGenerator, make_generator
from billhook.search.sliced import live_tensors
from billhook.search.space import Genes, Space


class PruningNet(nn.Module):
    """Runs the captured network with generated weights, in the widths of `row`.

    Weights of convolutions and linear layers whose inputs or outputs have a gene are generated in full size
    from the widths of these genes; all other parameters are trained as they are. Everything is then cut to
    the units that stay, the first ones in the order of the space. Batch norms use the statistics of the batch
    in training; there are none to use afterwards, they have to be measured for every row.

    Args:
        space: The candidates; the graph should have a free batch size.
        tensors: All parameters and buffers in full size by name; what the weights begin with.
        hidden: Outputs of the first generating layers.
        limit: Numbers in one second layer at most; see `make_generator`.
        spread: See `make_generator`.
    Attributes:
        row: The widths of the next pass; the full ones at first.
        factorised: Tensors whose second layer is factorised.
    References:
        Liu et al., "MetaPruning: Meta Learning for Automatic Neural Network Channel Pruning", ICCV 2019,
        section 3.1. arXiv:1903.10258.
    Differs from the source:
        Made from the channel groups of any network instead of written for three of them; a linear layer that
        reads a group is generated too. Scale and shift of batch norms are trained, shared by all widths and
        cut to size, where most of the source's norms have none. There is one norm for all widths, because the
        statistics that the source keeps for each of them must not be used.
    """

    def __init__(
        self, space: Space, tensors: Mapping[str, Tensor], *, hidden: int, limit: int, spread: float
    ) -> None:
        super().__init__()
        self.space, self.row = space, space.highest
        program = space.graph.program
        self._encodings = encodings(space)
        self.generators = nn.ModuleList(
            make_generator(len(genes), hidden, tensors[name], limit, spread)
            for name, genes in self._encodings.items()
        )
        self.plain = nn.Module()
        self._plain = [n for n in program.shapes if n not in self._encodings]
        for name in self._plain:
            value = tensors[name].detach().clone()
            put(self.plain, name, nn.Parameter(value) if name in program.parameters else value)
        self.to(next(iter(tensors.values())).device)

    @property
    def factorised(self) -> tuple[str, ...]:  # noqa: D102 (told above)
        pairs = zip(self._encodings, self.generators, strict=True)
        return tuple(name for name, made in pairs if isinstance(made, FactorisedGenerator))

    def tensors(self, row: Genes) -> dict[str, Tensor]:
        """Return all parameters and buffers in full size, as they are for these widths.

        Gradients flow back through parameters; buffers are copies.
        """
        found: dict[str, Tensor] = {}
        some = next(self.parameters())
        fractions = torch.from_numpy(self.space.fractions(row)[0]).to(some.device, some.dtype)
        with torch.autocast(some.device.type, enabled=False):  # casts would cost more than they save
            for (name, genes), generator in zip(self._encodings.items(), self.generators, strict=True):
                found[name] = generator(fractions[list(genes)])
        for name in self._plain:
            value = _find(self.plain, name)
            found[name] = value if isinstance(value, nn.Parameter) else value.clone()
        return found

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the network of the widths `row` makes of inputs."""
        graph = self.space.graph
        kept = graph.kept(make_plan(graph, self.space.keep(self.row)))
        cut = {n: _laid_out(t) for n, t in live_tensors(self.tensors(self.row), kept).items()}
        network = ExportedNetwork(graph.program, {n: t.detach() for n, t in cut.items()}, kept)
        return functional_call(network.train(self.training), cut, args, kwargs)


def _laid_out(tensor: Tensor) -> Tensor:
    """Return a tensor with its numbers in one piece, filters channels last."""
    layout = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
    return tensor.contiguous(memory_format=layout)


def _find(root: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    value: Tensor = getattr(root.get_submodule(path), leaf)
    return value
