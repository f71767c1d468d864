from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from billhook.criteria import Calibration
from billhook.criteria._saliency import saliency
from billhook.errors import InputError


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(12, 2))


def _batches(count: int = 2) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 1, 4, 4, generator=generator), torch.tensor([0, 1, 1, 0])) for _ in range(count)]


AXES = [("0.weight", 0), ("4.weight", 1)]


def test_one_row_per_batch_equals_weight_times_gradient() -> None:
    model = _model().eval()
    found = saliency(model, AXES, Calibration(_batches()), batches=10)
    for row, (inputs, targets) in enumerate(_batches()):
        model.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        conv, head = model[0].weight, model[4].weight
        torch.testing.assert_close(found["0.weight", 0][row], (conv * conv.grad).sum((1, 2, 3)).detach())
        torch.testing.assert_close(found["4.weight", 1][row], (head * head.grad).sum(0).detach())


def test_nothing_of_the_model_or_the_random_state_changes() -> None:
    model = _model().train()
    model[0].eval()
    model[4].weight.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.get_rng_state()
    loader = DataLoader(TensorDataset(*_batches()[0]), batch_size=2, shuffle=True)
    found = saliency(model, AXES, Calibration(loader), batches=10)
    assert found["4.weight", 1].abs().sum() > 0, "frozen parameters have gradients too"
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert [m.training for m in model] == [False, True, True, True, True]
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[4].weight.grad is None
    assert not model[4].weight.requires_grad
    assert torch.equal(torch.get_rng_state(), state)


def test_the_model_is_put_back_when_the_data_fails() -> None:
    def broken() -> Iterator[Any]:
        yield _batches()[0]
        raise KeyboardInterrupt

    model = _model().train()
    with pytest.raises(KeyboardInterrupt):
        saliency(model, AXES, Calibration(broken()), batches=10)
    assert all(m.training for m in model.modules())


def test_a_shuffling_loader_gives_the_same_batches_again() -> None:
    def run(seed: int) -> Tensor:
        loader = DataLoader(TensorDataset(*_batches()[0]), batch_size=2, shuffle=True)
        return saliency(_model(), AXES, Calibration(loader), batches=1, seed=seed)["0.weight", 0]

    assert torch.equal(run(3), run(3))
    assert len({tuple(run(seed)[0].tolist()) for seed in range(8)}) > 1


def test_it_works_where_the_caller_switched_gradients_off() -> None:
    model, batches = _model(), _batches()
    expected = saliency(model, AXES, Calibration(batches), batches=1)
    for switch in (torch.no_grad, torch.inference_mode):
        with switch():
            found = saliency(model, AXES, Calibration(batches), batches=1)
        assert torch.equal(found["0.weight", 0], expected["0.weight", 0])


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "holds no batch"),
        ([torch.ones(4, 1, 4, 4)], "batch 0 is a Tensor; expected a pair"),
        ([(torch.ones(4, 1, 4, 4), "cat")], "the default loss takes a tensor of logits"),
    ],
)
def test_wrong_data_is_refused(batches: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        saliency(_model(), AXES, Calibration(batches), batches=3)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda y, t: y, r"one finite number, not a Tensor of shape \[4, 2\]"),
        (lambda y, t: y.sum() * float("nan"), "one finite number, not a Tensor nan"),
        (lambda y, t: 3.0, "one finite number, not a float 3.0"),
        (lambda y, t: y.detach().sum(), "does not depend on the weights"),
    ],
)
def test_a_wrong_loss_is_refused(loss: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        saliency(_model(), AXES, Calibration(_batches(), loss), batches=3)


def test_a_module_under_two_names_keeps_its_parameters() -> None:
    class TwoNames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
            self.blocks = nn.ModuleList([self.shared, self.shared])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks[1](self.blocks[0](x))

    model = TwoNames()
    weight = model.shared[0].weight
    data = [(torch.randn(3, 4), torch.randn(3, 4))]
    found = saliency(model, [("shared.0.weight", 0)], Calibration(data, nn.functional.mse_loss), batches=1)
    assert found["shared.0.weight", 0].shape == (1, 6)
    assert model.blocks[1][0].weight is weight
    assert isinstance(weight, nn.Parameter)
    assert weight.requires_grad
    assert weight.grad is None
