"""Moments are sums over what layers read; from them follow the contributions of units."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from billhook.criteria import Calibration
from billhook.errors import InputError
from billhook.graph import capture
from billhook.train import reconstruction
from billhook.train.reader_layers import find_readers
from billhook.train.reconstruction import contributions, moments, refitted, taken
from tests.hand_made import group, member
from tests.networks import batches, build

ALL = 10**6


def _pair(stride: int, blocks: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4 * blocks, 1),
        nn.ReLU(),
        nn.Conv2d(4 * blocks, 6, 3, padding=1, stride=stride, groups=blocks),
    ).eval()


UNITS = group("0", 4, member("0.weight", 0, "out", 4), member("2.weight", 1, "in", 4))
DATA = [(torch.randn(3, 2, 6, 5), torch.zeros(3)) for _ in range(2)]


def _split(model: nn.Module, blocks: int = 1) -> Tensor:
    """Return X: how every output value splits up into the parts of the four units: [values, 4]."""
    conv, parts = model[2], []
    with torch.no_grad():
        x = torch.cat([model[1](model[0](images)) for images, _ in DATA])
        for unit in range(4):
            alone = torch.zeros_like(x)
            alone[:, unit::4] = x[:, unit::4]
            parts.append(
                functional.conv2d(alone, conv.weight, None, conv.stride, conv.padding, groups=blocks)
            )
    return torch.stack([p.flatten() for p in parts], 1)


@pytest.mark.parametrize(("stride", "blocks"), [(1, 1), (2, 1), (1, 2)])
def test_the_gram_matrix_is_that_of_the_contributions(stride: int, blocks: int) -> None:
    model = _pair(stride, blocks)
    (layer,) = find_readers(model, [UNITS], method="x")
    found = moments(model, [layer], Calibration(DATA), batches=5, positions=ALL)
    x = _split(model, blocks)
    gram = contributions(layer, "0", found["2.weight"].second)
    torch.testing.assert_close(gram, (x.T @ x).double(), rtol=1e-4, atol=1e-4)
    with torch.no_grad():  # y = X·1 is the output without bias
        y = torch.cat([model(images) for images, _ in DATA]) - model[2].bias[:, None, None]
    torch.testing.assert_close(x.sum(1), y.flatten(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(float(gram.sum()), float(y.square().sum()), rtol=1e-4, atol=0)


def test_units_are_taken_a_few_at_a_time_where_matrices_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _pair(1)
    (layer,) = find_readers(model, [UNITS], method="x")
    second = moments(model, [layer], Calibration(DATA), batches=5, positions=ALL)["2.weight"].second
    whole = contributions(layer, "0", second)
    for at_once in (1, 3 * 9 * 36):
        monkeypatch.setattr(reconstruction, "_AT_ONCE", at_once)
        torch.testing.assert_close(contributions(layer, "0", second), whole)


def test_contributions_of_several_features_of_a_linear_layer_add_up() -> None:
    model, _ = build("flatten")
    readers = capture(model, torch.zeros(1, 3, 8, 8)).groups
    (layer,) = find_readers(model, [readers["conv2"]], method="x")
    data = batches("flatten")
    found = moments(model, [layer], Calibration(data), batches=5, positions=ALL)
    with torch.no_grad():
        maps = torch.cat([model.conv2(model.conv1(i).relu()).relu() for i, _ in data])
        features = functional.adaptive_avg_pool2d(maps, 2)
        weight = model.hidden.weight.view(20, 12, 4)
        x = torch.einsum("nup,oup->nou", features.flatten(2), weight).flatten(0, 1)
    gram = contributions(layer, "conv2", found["hidden.weight"].second)
    torch.testing.assert_close(gram, (x.T @ x).double(), rtol=1e-4, atol=1e-4)


def test_drawn_positions_estimate_the_sum_over_all() -> None:
    model = _pair(1)
    (layer,) = find_readers(model, [UNITS], method="x")
    exact = moments(model, [layer], Calibration(DATA), batches=5, positions=ALL)["2.weight"]
    draws = [
        moments(model, [layer], Calibration(DATA), batches=5, positions=10, seed=s)["2.weight"]
        for s in range(60)
    ]
    mean = torch.stack([d.second for d in draws]).mean(0)
    torch.testing.assert_close(mean, exact.second, rtol=0.1, atol=0.05 * float(exact.second.max()))
    assert draws[0].rows == pytest.approx(exact.rows)
    assert not torch.equal(draws[0].second, draws[1].second)


def test_the_answers_of_a_teacher_are_those_to_its_own_inputs() -> None:
    model, teacher = _pair(1), _pair(1)
    with torch.no_grad():
        model[0].weight[1] = 0
    (layer,) = find_readers(model, [UNITS], method="x")
    for positions in (ALL, 7):
        found = moments(model, [layer], Calibration(DATA), batches=5, positions=positions, teacher=teacher)
        own = moments(model, [layer], Calibration(DATA), batches=5, positions=positions)
        same = moments(teacher, [layer.on(teacher)], Calibration(DATA), batches=5, positions=positions)
        assert torch.equal(found["2.weight"].second, own["2.weight"].second), "the same positions"
        assert not torch.allclose(found["2.weight"].cross, own["2.weight"].cross)
        itself = moments(
            teacher, [layer.on(teacher)], Calibration(DATA), batches=5, positions=positions, teacher=teacher
        )
        torch.testing.assert_close(itself["2.weight"].cross, same["2.weight"].cross, rtol=1e-4, atol=1e-3)


def test_layers_come_in_the_order_in_which_they_run() -> None:
    model, inputs = build("residual")
    layers = find_readers(model, capture(model, inputs).groups.prunable, method="x")
    found = moments(model, layers[::-1], Calibration(batches("residual")), batches=1, positions=4)
    names = ["inner1", "outer1", "inner2", "outer2", "project", "head"]
    assert sorted(found) == sorted(f"{n}.weight" for n in names)
    order = [name.removesuffix(".weight") for name in found]
    assert order.index("inner1") < order.index("outer1") < order.index("inner2") < order.index("head")


def test_the_model_is_untouched() -> None:
    model, inputs = build("residual")
    model.train()
    model.bn1.eval()
    layers = find_readers(model, capture(model, inputs).groups.prunable, method="x")
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.get_rng_state()
    moments(model, layers, taken(Calibration(batches("residual")), 2, 0), batches=2, positions=4)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert [m.training for m in (model, model.bn, model.bn1)] == [True, True, False]
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_no_more_batches_are_used_than_asked() -> None:
    model = _pair(1)
    (layer,) = find_readers(model, [UNITS], method="x")
    found = moments(model, [layer], Calibration(DATA), batches=1, positions=ALL)
    assert found["2.weight"].rows == 3 * 6 * 5


def test_no_batches_are_an_error() -> None:
    model = _pair(1)
    with pytest.raises(InputError, match="holds no batch; give data="):
        moments(model, find_readers(model, [UNITS], method="x"), Calibration([]), batches=1, positions=1)


def test_a_layer_that_is_not_called_is_an_error() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return functional.linear(self.a(x), self.b.weight)

    model = Around()
    hidden = group("a", 4, member("a.weight", 0, "out", 4), member("b.weight", 1, "in", 4))
    data = Calibration([(torch.randn(2, 3), torch.zeros(2))])
    with pytest.raises(InputError, match=r"the layer of b.weight is never called as a module"):
        moments(model, find_readers(model, [hidden], method="x"), data, batches=1, positions=1)


def _with_a_twin() -> tuple[Tensor, Tensor, Tensor]:
    """Return 200 rows of six inputs of which the last is the third again, W [4, 6] and E[x xᵀ]."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator, dtype=torch.float64)
    x[:, 5] = x[:, 2]
    return x, torch.randn(4, 6, generator=generator, dtype=torch.float64), (x.T @ x)[None] / len(x)


def test_a_twin_takes_over_the_weights_of_the_column_that_leaves() -> None:
    x, matrix, second = _with_a_twin()
    gone = torch.arange(6) == 5
    found = refitted(matrix[None], matrix[None] @ second, second, gone, 1e-9)[0]
    torch.testing.assert_close(found[:, 2], matrix[:, 2] + matrix[:, 5], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[:, [0, 1, 3, 4]], matrix[:, [0, 1, 3, 4]], rtol=0, atol=1e-6)
    assert not found[:, 5].any()
    torch.testing.assert_close(x @ found.T, x @ matrix.T, rtol=0, atol=1e-5)


def test_what_is_refitted_is_the_least_squares_solution() -> None:
    x, matrix, second = _with_a_twin()
    gone = torch.tensor([False, True, False, False, True, True])
    found = refitted(matrix[None], matrix[None] @ second, second, gone, 1e-9)[0]
    wanted = torch.linalg.lstsq(x[:, ~gone], x @ matrix.T).solution.T
    torch.testing.assert_close(found[:, ~gone], wanted, rtol=0, atol=1e-6)


def test_nothing_changes_if_nothing_leaves() -> None:
    _, matrix, second = _with_a_twin()
    none = torch.zeros(6, dtype=torch.bool)
    found = refitted(matrix[None], matrix[None] @ second, second, none, 1e-6)[0]
    torch.testing.assert_close(found, matrix, rtol=0, atol=1e-6)
