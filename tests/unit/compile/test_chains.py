"""Products whose planes go to one depthwise convolution make a few at a time; nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook.compile.chains import CHAIN, SLOTS, chained
from billhook.compile.compiler import Compiled, assembled, compile_model
from billhook.compile.layout import Layout, lay_out
from billhook.compile.library import isas
from billhook.compile.products import Depthwise
from billhook.compile.session import EngineSession
from billhook.compile.tiles import IN_LANES, Tile
from tests.unit.compile.exactness import image


class Inverted(nn.Module):
    """Expansion, depthwise convolution, projection, residual; only the expansion's sparsity varies."""

    def __init__(self, density: float, stride: int = 1, twice: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.expand, self.project = nn.Conv2d(24, 100, 1), nn.Conv2d(100, 24, 1)
        self.deep = nn.Conv2d(100, 100, 3, stride, padding=1, groups=100)
        with torch.no_grad():
            blocks = torch.rand(25, 1, 24) < density
            self.expand.weight.view(25, 4, 24).mul_(blocks)
            self.expand.weight[8:24] = 0  # rows without any weight keep their places
        self.residual, self.twice = stride == 1, twice

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.relu(self.expand(x))
        y: Tensor = self.project(torch.relu(self.deep(wide)))
        if self.twice:
            y = y + wide[:, :24]
        return y + x if self.residual else y


def compiled(model: nn.Module) -> Compiled:
    return compile_model(model.eval(), image(24, 20, 20), check=False)


def layout_of(made: Compiled) -> Layout:
    return lay_out(made.network, chained(made.network, {}))


def names(made: Compiled, tiles: dict[str, Tile] | None = None) -> int:
    return len(chained(made.network, tiles or {}))


def test_sparse_products_with_one_reader_are_chained() -> None:
    made = compiled(Inverted(0.2))
    layout = layout_of(made)
    (value,) = layout.chained
    assert value.channels == 100
    assert len(set(layout.planes[value].tolist())) == CHAIN
    assert layout.arena < lay_out(made.network).arena


@pytest.mark.parametrize("model", [Inverted(1.0), Inverted(0.2, twice=True)])
def test_dense_products_and_those_with_other_readers_are_not(model: nn.Module) -> None:
    assert names(compiled(model)) == 0


def test_rows_in_lanes_make_no_chain() -> None:
    made = compiled(Inverted(0.2))
    products = [op.output.name for op in made.network]
    assert names(made, dict.fromkeys(products, Tile(8, 3))) == 1
    assert names(made, dict.fromkeys(products, Tile(IN_LANES))) == 0


def test_what_a_chain_reads_lies_beside_what_it_makes() -> None:
    made = compiled(Inverted(0.2, stride=2))
    layout = layout_of(made)
    reader = next(op for op in made.network if isinstance(op, Depthwise))
    product = next(op for op in made.network if op.output is reader.inputs[0])

    def floats(value: object, planes: int) -> set[int]:
        form, first = layout.geometry[value], int(layout.planes[value][0])  # type: ignore[index]
        return set(range(first - form.before, first - form.before + planes * form.stride))

    ring = floats(reader.inputs[0], CHAIN * min(SLOTS, -(-100 // CHAIN)))
    x, y = floats(product.inputs[0], 24), floats(reader.output, 100)
    assert not ring & x
    assert not ring & y
    assert not x & y
    assert max(ring | x | y) < layout.arena


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("rows", [1, 4, 8])
def test_chains_compute_the_same_with_any_number_of_threads(stride: int, rows: int) -> None:
    model, x = Inverted(0.2, stride), image(24, 20, 20)
    made = compiled(model)
    tiles = {op.output.name: Tile(rows, 3) for op in made.network}
    assert names(made, tiles) == 1
    with torch.no_grad():
        expected = model(x).numpy()
    for isa in isas():
        results = []
        for threads in (1, 2, 4, 11):
            with EngineSession(assembled(made.network, tiles), threads, isa) as session:
                results += session.run([x.numpy()])
        np.testing.assert_allclose(results[0], expected, atol=1e-4)
        assert all(np.array_equal(r, results[0]) for r in results[1:]), isa


@pytest.mark.usefixtures("engine")
def test_the_time_of_a_chain_is_that_of_its_product() -> None:
    made = compiled(Inverted(0.2))
    with EngineSession(made.file) as session:
        times = [session.time(i, 3) for i in range(session.instructions)]
    assert times[1] < times[0] / 5
