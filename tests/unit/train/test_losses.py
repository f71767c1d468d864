from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from billhook.errors import InputError
from billhook.train.losses import check_classification, cross_entropy, distillation


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]])  # probabilities 1/4 and 3/4
    assert cross_entropy(logits, torch.tensor([1])).item() == pytest.approx(-math.log(0.75))
    smooth = -(0.95 * math.log(0.75) + 0.05 * math.log(0.25))
    assert cross_entropy(logits, torch.tensor([1]), 0.1).item() == pytest.approx(smooth)


def test_distillation_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 2 * math.log(3.0)]])
    # At temperature 2 the teacher says (1/4, 3/4), the student (1/2, 1/2); times 2².
    expected = 4 * (0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert distillation(student, teacher, 2.0).item() == pytest.approx(expected, rel=1e-5)


def test_distillation_of_the_same_answers_is_zero_and_of_dense_ones_is_a_mean() -> None:
    a, b = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    assert distillation(a, a, 4.0).item() == pytest.approx(0.0, abs=1e-6)
    flat = distillation(a.movedim(1, -1).reshape(-1, 3), b.movedim(1, -1).reshape(-1, 3), 4.0)
    assert distillation(a, b, 4.0).item() == pytest.approx(flat.item(), rel=1e-5)


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    distillation(student, teacher, 1.0).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_a_teacher_of_other_classes_is_an_error() -> None:
    with pytest.raises(InputError, match=r"shape \[2, 5\], the model with \[2, 3\]"):
        distillation(torch.zeros(2, 3), torch.zeros(2, 5), 1.0)


FINE = [
    (torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])),
    (torch.zeros(4, 3), torch.tensor([0, 1, -100, 0])),
    (torch.zeros(4, 3), torch.full((4, 3), 1 / 3)),
    (torch.zeros(2, 3, 5, 5), torch.zeros(2, 5, 5, dtype=torch.long)),
]
WRONG = [
    ({"logits": torch.zeros(4, 3)}, torch.zeros(4), r"returns a dict.*output="),
    (torch.zeros(4), torch.zeros(4), r"float32\[4\] and float32\[4\]; give your own"),
    (torch.zeros(4, 3), [0, 1], "a list; give your own"),
    (torch.zeros(4, 3), torch.zeros(4, 1), "probabilities"),
    (torch.zeros(4, 3), torch.zeros(5, dtype=torch.long), r"expected \[4\]"),
    (torch.zeros(4, 3), torch.tensor([0, 1, 2, 3]), "classes 0 to 3, but the model has 3 outputs"),
    (torch.zeros(4, 3), torch.tensor([0, 1, 2, -1]), "classes -1 to 2"),
]


@pytest.mark.parametrize(("outputs", "targets"), FINE)
def test_what_cross_entropy_takes_passes_the_check(outputs: Tensor, targets: Tensor) -> None:
    check_classification(outputs, targets)
    assert cross_entropy(outputs, targets).isfinite()


@pytest.mark.parametrize(("outputs", "targets", "message"), WRONG)
def test_the_check_says_what_does_not_fit(outputs: object, targets: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_classification(outputs, targets)
