from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from billhook.criteria import Calibration, score
from billhook.criteria.synflow import Synflow, flow, ones
from billhook.errors import InputError
from billhook.graph import capture
from tests.hand_made import group, member
from tests.networks import batches, build


def _mlp() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 5, bias=False), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(5, 3, bias=False)).double()


NAMES = ["0.weight", "2.weight", "4.weight"]


def test_every_layer_passes_on_the_whole_flow() -> None:
    model = _mlp()
    products, total = flow(model, NAMES, torch.ones(1, 4, dtype=torch.float64))
    by_hand = torch.ones(4, dtype=torch.float64)
    for name in NAMES:
        by_hand = model.get_parameter(name).detach().abs() @ by_hand
    assert total == pytest.approx(float(by_hand.sum()), rel=1e-12)
    for name in NAMES:
        assert float(products[name].sum()) == pytest.approx(total, rel=1e-12)


def test_what_flows_into_a_neuron_flows_out() -> None:
    products, _ = flow(_mlp(), NAMES, torch.ones(1, 4, dtype=torch.float64))
    torch.testing.assert_close(products["0.weight"].sum(1), products["2.weight"].sum(0))
    torch.testing.assert_close(products["2.weight"].sum(1), products["4.weight"].sum(0))


def test_weights_come_back_to_the_bit() -> None:
    model, inputs = build("residual")
    with torch.no_grad():
        model.stem.weight[0] = -0.0
    before = {name: t.detach().clone() for name, t in model.state_dict().items()}
    pointers = [p.data_ptr() for p in model.parameters()]
    score(Synflow(), model.train(), capture(model, inputs).groups.prunable, example_inputs=inputs)
    after = model.state_dict()
    assert all(torch.equal(after[name], t) and after[name].dtype == t.dtype for name, t in before.items())
    assert torch.equal(torch.signbit(after["stem.weight"]), torch.signbit(before["stem.weight"]))
    assert [p.data_ptr() for p in model.parameters()] == pointers


def test_scores_are_shares_of_the_flow() -> None:
    hidden = group("0", 6, member("0.weight", 0, "out", 6), member("2.weight", 1, "in", 6))
    found = score(Synflow(), _mlp(), [hidden], example_inputs=torch.zeros(2, 4))["0"]
    torch.testing.assert_close(found.sum(), torch.tensor(2.0))  # what comes in and what goes out


def test_signs_and_running_statistics_do_not_matter() -> None:
    model, inputs = build("plain")
    prunable = capture(model, inputs).groups.prunable
    before = score(Synflow(), model, prunable, example_inputs=inputs)
    with torch.no_grad():
        model.conv2.weight.neg_()
        model.bn1.running_mean.add_(3)
        model.bn1.running_var.mul_(9)
    after = score(Synflow(), model, prunable, example_inputs=inputs)
    assert all(torch.equal(after[name], scores) for name, scores in before.items())


def test_a_deep_network_leaves_the_range_of_float32_but_scores_stay_finite() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(64, 64, bias=False) for _ in range(40)]
    with torch.no_grad():
        for layer in layers:
            layer.weight.mul_(20)
    model = nn.Sequential(*layers)
    names = [f"{i}.weight" for i in range(40)]
    assert flow(model, names, torch.ones(1, 64, dtype=torch.float64))[1] > torch.finfo(torch.float32).max
    hidden = group("20", 64, member("20.weight", 0, "out", 64), member("21.weight", 1, "in", 64))
    assert score(Synflow(), model, [hidden], example_inputs=torch.ones(1, 64))["20"].min() > 0


def test_the_values_of_the_input_do_not_matter_and_data_may_stand_in_for_its_shape() -> None:
    model, inputs = build("plain")
    prunable = capture(model, inputs).groups.prunable
    by_example = score(Synflow(), model, prunable, example_inputs=inputs)
    by_data = score(Synflow(), model, prunable, calibration=Calibration(batches("plain")))
    for name, scores in by_example.items():
        torch.testing.assert_close(by_data[name], scores)


def test_tokens_stay_what_they_are() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.a, self.b = nn.Embedding(7, 4), nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, ids: Tensor) -> Tensor:
            return self.b(self.a(self.table(ids)).relu())

    torch.manual_seed(0)
    model, ids = Tokens(), torch.tensor([[0, 3, 6]])
    hidden = group("a", 5, member("a.weight", 0, "out", 5), member("b.weight", 1, "in", 5))
    first, second = (
        score(Synflow(), model, [hidden], example_inputs=x)["a"] for x in (ids, ids.flip(1) // 2)
    )
    assert (first > 0).all()
    assert not torch.equal(first, second)


def test_ones_keeps_the_structure() -> None:
    made = ones({"x": torch.zeros(2, 3), "ids": torch.tensor([4])}, torch.device("cpu"))
    assert torch.equal(made["x"], torch.ones(2, 3, dtype=torch.float64))
    assert made["ids"].tolist() == [4]


@pytest.mark.parametrize("calibration", [None, Calibration([]), Calibration([torch.ones(2, 4)])])
def test_without_any_input_it_says_what_to_give(calibration: Calibration | None) -> None:
    hidden = group("0", 6, member("0.weight", 0, "out", 6))
    with pytest.raises(
        InputError, match="'synflow' needs the shape of an input; give example_inputs or data="
    ):
        score(Synflow(), _mlp(), [hidden], calibration=calibration)


def test_outputs_without_gradients_are_refused() -> None:
    class Detached(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    with pytest.raises(InputError, match="outputs do not depend on its weights"):
        flow(Detached(nn.Linear(2, 2)), ["0.weight"], torch.ones(1, 2, dtype=torch.float64))
