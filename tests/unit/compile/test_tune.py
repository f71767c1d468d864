"""Cuts are found by timing, computed the same with any, and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from billhook.compile import tile_cache, tune
from billhook.compile.compiler import Compiled, assembled, compile_model
from billhook.compile.session import EngineSession
from billhook.compile.tiles import Tile
from tests.unit.compile.exactness import image

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture
def compiled() -> Compiled:
    """Two products, with phases ahead of the second."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3, 2))
    return compile_model(model.eval(), image(4, 12, 12))


def fastest_is(monkeypatch: pytest.MonkeyPatch, network: object, wanted: Tile) -> None:
    """Let one cut take half of the time of all others."""
    real = tune._times

    def times(network: object, tiles: dict[str, Tile], products: dict[int, object], *rest: object) -> object:
        assert set(real(network, tiles, products, *rest)) == {p.output.name for p in products.values()}
        return {p.output.name: 1.0 - 0.5 * (tiles.get(p.output.name) == wanted) for p in products.values()}

    monkeypatch.setattr(tune, "_times", times)


def test_a_network_without_operators_has_no_cuts() -> None:
    assert tune.tune(compile_model(nn.Identity(), image(2, 3, 3)).network) == {}


def test_the_fastest_cut_is_taken(compiled: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Tile(4, 6)
    fastest_is(monkeypatch, compiled.network, wanted)
    assert set(tune.tune(compiled.network).values()) == {wanted}


def test_blocks_that_multiply_much_more_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Conv2d(16, 16, 1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight.view(16, 16).fill_diagonal_(1.0)  # blocks of 8 rows would have 8 times as many weights
    made = compile_model(layer.eval(), image(16, 12, 12))
    fastest_is(monkeypatch, made.network, Tile(8, 6))
    assert tune.tune(made.network) == {}


def test_any_cut_computes_the_same(compiled: Compiled) -> None:
    x = image(4, 12, 12).numpy()
    names = [op.output.name for op in compiled.network]
    results = []
    for tile in (None, Tile(8, 3), Tile(4, 1), Tile(1, 96)):
        with EngineSession(
            assembled(compiled.network, {} if tile is None else dict.fromkeys(names, tile))
        ) as s:
            results += s.run([x])
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=1e-5)


def test_cuts_are_found_once(compiled: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_cache, "folder", lambda: tmp_path / "tiles")
    found = {"relu": Tile(4, 6)}
    monkeypatch.setattr(tile_cache, "tune", lambda *_, **__: found)
    assert tile_cache.tuned(compiled) == found
    monkeypatch.setattr(tile_cache, "tune", lambda *_, **__: pytest.fail("timed again"))
    assert tile_cache.tuned(compiled) == found
    monkeypatch.setattr(tile_cache, "tune", lambda *_, **__: {})
    assert tile_cache.tuned(compiled, threads=2) == {}  # other conditions


@pytest.mark.parametrize("text", ["", "[]", '{"relu": [3, 6]}', '{"relu": [4, 0]}', '{"relu": 4}', "{"])
def test_a_damaged_file_is_not_used(
    text: str, compiled: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile_cache, "folder", lambda: tmp_path / "tiles")
    monkeypatch.setattr(tile_cache, "tune", lambda *_, **__: {"relu": Tile(8, 12)})
    tile_cache.tuned(compiled)
    (path,) = tile_cache.folder().iterdir()
    path.write_text(text)
    assert tile_cache.tuned(compiled) == {"relu": Tile(8, 12)}


def test_a_folder_that_cannot_be_written_is_no_error(
    compiled: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tile_cache, "folder", lambda: tmp_path / "file" / "tiles")
    monkeypatch.setattr(tile_cache, "tune", lambda *_, **__: {"relu": Tile(8, 12)})
    assert tile_cache.tuned(compiled) == {"relu": Tile(8, 12)}
