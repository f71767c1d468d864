from __future__ import annotations

import pytest
import torch
from torch import nn

from billhook.errors import InputError
from billhook.train import evaluate
from tests.unit.train.tiny import TinyBatches, tiny_net


class Echo(nn.Module):
    """Returns its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_accuracy_and_loss_by_hand_over_batches_of_different_size() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    targets = torch.tensor([0, 0, 0])
    batches = [(logits[:2], targets[:2]), (logits[2:], targets[2:])]
    found = evaluate(Echo(), batches)
    each = [nn.functional.cross_entropy(logits[i : i + 1], targets[i : i + 1]).item() for i in range(3)]
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.loss == pytest.approx(sum(each) / 3)
    assert found.samples == 3


def test_dense_outputs_count_positions_and_leave_ignored_ones_out() -> None:
    logits = torch.zeros(2, 3, 4, 4)
    logits[:, 1] = 1
    targets = torch.ones(2, 4, 4, dtype=torch.long)
    targets[0, 0], targets[1] = -100, 2
    found = evaluate(Echo(), [(logits, targets)])
    assert found.samples == 28
    assert found.accuracy == 12 / 28


def test_probabilities_as_targets() -> None:
    assert evaluate(Echo(), [(torch.eye(3), torch.eye(3) * 0.8 + 0.1)]).accuracy == 1.0


def test_the_model_is_evaluated_in_eval_mode_and_left_alone() -> None:
    model = tiny_net(dropout=0.5)
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    strides = [p.stride() for p in model.parameters()]
    assert evaluate(model, TinyBatches()) == evaluate(model, TinyBatches())
    assert [m.training for m in model] == [True, False, *[True] * 6]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [p.stride() for p in model.parameters()] == strides
    model.train()(torch.zeros(2, 2, 6, 6)).sum().backward()  # nothing was left without gradients


def test_bf16_is_close_to_fp32() -> None:
    full, half = (evaluate(tiny_net(), TinyBatches(), precision=p) for p in ("32-true", "bf16-mixed"))
    assert half.loss == pytest.approx(full.loss, abs=0.05)
    assert half != full


def test_a_loss_and_an_output_of_ones_own() -> None:
    class Wrapped(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": x}

    batches = [(torch.eye(2), torch.tensor([0, 1]))]
    found = evaluate(Wrapped(), batches, output=lambda r: r["logits"], loss=lambda o, t: o.sum())
    assert (found.accuracy, found.loss) == (1.0, 2.0)
    with pytest.raises(InputError, match="returns a dict"):
        evaluate(Wrapped(), batches)


def test_wrong_arguments_are_explained() -> None:
    with pytest.raises(InputError, match="precision='fp8' must be one of 'auto'"):
        evaluate(tiny_net(), TinyBatches(), precision="fp8")
    with pytest.raises(InputError, match="nothing to evaluate"):
        evaluate(tiny_net(), TinyBatches(count=0))
