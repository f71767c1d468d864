from __future__ import annotations

import pytest
import torch
from torch import nn

from billhook.errors import InputError
from billhook.train import Callback, CallbackDriver, StepContext


class Records(Callback):
    """Writes down what it is shown."""

    def __init__(self, term: float | None = None) -> None:
        self.term = term
        self.log: list[tuple[str, int, int, float | None, bool]] = []
        self.gradients: list[float] = []

    def note(self, name: str, context: StepContext) -> None:
        loss = None if context.loss is None else round(context.loss.item(), 4)
        self.log.append((name, context.step, context.epoch, loss, context.inputs is not None))

    def before_step(self, context: StepContext) -> None:
        self.note("before", context)

    def loss_term(self, context: StepContext) -> torch.Tensor | None:
        self.note("term", context)
        return None if self.term is None else torch.tensor(self.term)

    def after_backward(self, context: StepContext) -> None:
        self.note("backward", context)
        gradient = context.model.get_parameter("weight").grad
        assert gradient is not None
        self.gradients.append(gradient.item())

    def after_step(self, context: StepContext) -> None:
        self.note("step", context)

    def after_epoch(self, context: StepContext) -> None:
        self.note("epoch", context)

    def finish(self, context: StepContext) -> None:
        self.note("finish", context)


def unit() -> tuple[nn.Linear, torch.optim.SGD]:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


X = torch.ones(1, 1)
EXPECTED = [
    ("before", 0, 0, None, True),
    ("term", 0, 0, 2.0, True),
    ("backward", 0, 0, 2.5, True),
    ("step", 0, 0, 2.5, True),
    ("epoch", 0, 0, None, False),
    ("before", 1, 1, None, True),
    ("term", 1, 1, 1.9, True),
    ("backward", 1, 1, 2.4, True),
    ("step", 1, 1, 2.4, True),
    ("epoch", 1, 1, None, False),
    ("finish", 1, 1, None, False),
]


def test_called_one_by_one_in_order() -> None:
    model, optimizer = unit()
    records = Records()
    driver = CallbackDriver([records, Records(0.5)], model, optimizer, total_steps=2)
    for _ in range(2):
        optimizer.zero_grad()
        driver.before_step(X, X)
        driver.add_terms(model(X).sum()).backward()
        driver.after_backward()
        optimizer.step()
        driver.after_step()
        driver.after_epoch()
    assert driver.finish() == (None, None)
    assert records.log == EXPECTED
    assert records.gradients == [1.0, 1.0]


@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("keyword", [False, True])
def test_attached_to_the_optimizer(closure: bool, keyword: bool) -> None:
    model, optimizer = unit()
    records = Records()
    driver = CallbackDriver([records, Records(0.5)], model, optimizer, total_steps=2)

    def backward() -> torch.Tensor:
        optimizer.zero_grad()
        driver.before_step(X, X)
        loss = driver.add_terms(model(X).sum())
        loss.backward()
        return loss

    with driver.attached():
        for _ in range(2):
            if not closure:
                backward()
                optimizer.step()
            elif keyword:
                assert optimizer.step(closure=backward) is not None
            else:
                assert optimizer.step(backward) is not None
            driver.after_epoch()
    driver.finish()
    optimizer.step()  # nobody is told any more
    assert records.log == EXPECTED
    assert records.gradients == [1.0, 1.0]


def test_the_base_class_does_nothing() -> None:
    model, optimizer = unit()
    driver = CallbackDriver([Callback()], model, optimizer, total_steps=1)
    driver.before_step(X, X)
    loss = model(X).sum()
    assert driver.add_terms(loss) is loss
    driver.after_backward()
    driver.after_step()
    driver.after_epoch()
    assert driver.finish() == (None,)
    assert Callback().state_dict() == {}
    Callback().load_state_dict({})


def test_what_is_no_callback_is_refused() -> None:
    with pytest.raises(InputError, match="must be an instance of"):
        CallbackDriver([Records], *unit(), total_steps=1)  # the class, not an object
