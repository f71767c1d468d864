"""On y = b·relu(a·x) with a squared loss, everything can be computed by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from billhook.criteria import Calibration, score
from billhook.criteria.taylor import Taylor
from billhook.errors import InputError
from billhook.fuse.copies import ChannelCopy
from billhook.graph import groups
from billhook.graph.groups import ChannelGroup
from tests.hand_made import group, member


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4, bias=False), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu())


@pytest.fixture
def toy() -> nn.Module:
    torch.manual_seed(0)
    return Toy()


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(5, 3, generator=generator), torch.randn(5, 2, generator=generator)) for _ in range(3)
    ]


HIDDEN = group("a", 4, member("a.weight", 0, "out", 4), member("b.weight", 1, "in", 4))


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum()


def _first_order(model: nn.Module, batch: tuple[Tensor, Tensor], unit: int) -> float:
    """Return d loss / d z · 1 for a gate z on the hidden unit, by finite differences in double precision."""

    def gated(z: float) -> float:
        twin = copy.deepcopy(model).double()
        with torch.no_grad():
            twin.b.weight[:, unit] *= z
            return float(_loss(twin(batch[0].double()), batch[1].double()))

    step = 1e-5
    return (gated(1 + step) - gated(1 - step)) / (2 * step)


def _scores(model: nn.Module, data: list[tuple[Tensor, Tensor]], **options: object) -> Tensor:
    found = score(Taylor(**options), model, [HIDDEN], calibration=Calibration(data, _loss))
    return found["a"]


@pytest.mark.parametrize("form", ["gate", "weight"])
def test_the_score_is_the_squared_first_order_change_averaged_over_batches(
    toy: nn.Module, batches: list[tuple[Tensor, Tensor]], form: str
) -> None:
    # Without a norm in between, a gate behind the unit and a factor on its weights are the same thing.
    expected = [sum(_first_order(toy, b, u) ** 2 for b in batches) / len(batches) for u in range(4)]
    torch.testing.assert_close(_scores(toy, batches, form=form), torch.tensor(expected), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("form", ["gate", "weight"])
def test_a_unit_that_nobody_reads_scores_zero(
    toy: nn.Module, batches: list[tuple[Tensor, Tensor]], form: str
) -> None:
    with torch.no_grad():
        toy.b.weight[:, 2] = 0
    scores = _scores(toy, batches, form=form)
    assert scores[2] == 0
    assert (scores[[0, 1, 3]] > 0).all()


def test_no_more_batches_are_used_than_asked(toy: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> None:
    assert torch.equal(_scores(toy, batches, batches=1), _scores(toy, batches[:1]))


def test_it_needs_data(toy: nn.Module) -> None:
    with pytest.raises(InputError, match="'taylor' learns from data; give data="):
        score(Taylor(), toy, [HIDDEN])


def test_a_group_that_no_weight_reads_gets_a_way_out(toy: nn.Module) -> None:
    lonely: ChannelGroup = group("a", 4, member("a.weight", 0, "out", 4))
    with pytest.raises(InputError, match="group 'a': it has no weights for form='gate'; use form='weight'"):
        score(Taylor(), toy, [lonely], calibration=Calibration([]))


class Copying(nn.Module):
    """y = b·relu(x·v) + c·x where copies of the channels of v carry them past b."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.b, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)
        self.carry = ChannelCopy(torch.arange(4), torch.ones(4), torch.ones(4))
        self.back = ChannelCopy(torch.arange(4), torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.v(x[:, :, None, None])
        logits: Tensor = self.head((self.b(x.relu()) + self.back(self.carry(x))).flatten(1))
        return logits


def _gate(model: nn.Module, batch: tuple[Tensor, Tensor], name: str, unit: int) -> float:
    """Return d loss / d z for a gate z on what reads one channel, by finite differences."""

    def gated(z: float) -> float:
        twin = copy.deepcopy(model).double()
        with torch.no_grad():
            for reader in {"v": ("b.weight", "carry.gate"), "carry": ("back.gate",)}[name]:
                tensor = dict(twin.state_dict())[reader]
                (tensor[:, unit] if tensor.dim() > 1 else tensor[unit : unit + 1]).mul_(z)
            return float(_loss(twin(batch[0].double()), batch[1].double()))

    step = 1e-5
    return (gated(1 + step) - gated(1 - step)) / (2 * step)


@pytest.mark.parametrize("name", ["v", "carry"])
def test_the_way_past_a_block_counts_as_what_reads_a_channel(
    batches: list[tuple[Tensor, Tensor]], name: str
) -> None:
    torch.manual_seed(0)
    model = Copying()
    chosen = groups(model, batches[0][0])[name]
    expected = [sum(_gate(model, b, name, u) ** 2 for b in batches) / len(batches) for u in range(4)]
    before = {key: t.clone() for key, t in model.state_dict().items()}
    found = score(Taylor(), model, [chosen], calibration=Calibration(batches, _loss))[name]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-3, atol=1e-6)
    assert all(torch.equal(t, before[key]) for key, t in model.state_dict().items())


def test_copies_have_no_weights_so_both_forms_look_at_who_reads_them(
    batches: list[tuple[Tensor, Tensor]],
) -> None:
    torch.manual_seed(0)
    model = Copying()
    copies = [groups(model, batches[0][0])["carry"]]
    gate, weight = (
        score(Taylor(form=form), model, copies, calibration=Calibration(batches, _loss))["carry"]
        for form in ("gate", "weight")
    )
    assert torch.equal(gate, weight)
    assert (gate > 0).all()
