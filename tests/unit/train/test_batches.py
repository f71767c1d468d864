from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, RandomSampler

from billhook.errors import InputError
from billhook.train import as_batches
from billhook.train.batches import batch_size, unpack
from billhook.train.rng import rng_state, set_rng_state
from tests.unit.train.tiny import TinyBatches


class Augmented(Dataset[tuple[Tensor, int]]):
    """Numbers with noise from every global generator."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return i + torch.rand(2) + random.random(), i


def numbers(batches: Any) -> list[list[float]]:
    return [inputs.flatten().tolist() for inputs, _ in batches]


def loaders() -> list[DataLoader[Any]]:
    data = Augmented()
    own = RandomSampler(data, generator=torch.Generator())
    return [
        DataLoader(data, batch_size=3, shuffle=True),
        DataLoader(data, batch_size=3, shuffle=True, generator=torch.Generator()),
        DataLoader(data, batch_size=3, sampler=own),
        DataLoader(data, batch_size=3, sampler=DistributedSampler(data, num_replicas=1, rank=0)),
    ]


@pytest.mark.parametrize("kind", range(4))
def test_the_order_of_a_loader_depends_on_seed_and_epoch_only(kind: int) -> None:
    one, other = as_batches(loaders()[kind], 3), as_batches(loaders()[kind], 3)
    list(one.epoch(0))  # the other one has seen nothing yet
    targets = [[t.tolist() for _, t in b.epoch(1)] for b in (one, other)]
    assert targets[0] == targets[1]
    assert targets[0] != [t.tolist() for _, t in one.epoch(2)]


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("start", [0, 1, 3])
def test_a_loader_goes_on_in_the_middle_of_an_epoch(kind: int, start: int) -> None:
    whole, states = [], [rng_state()]
    for inputs, _ in as_batches(loaders()[kind]).epoch(4):
        whole.append(inputs.flatten().tolist())
        states.append(rng_state())
    set_rng_state(states[start])  # as a checkpoint after `start` batches does
    assert numbers(as_batches(loaders()[kind]).epoch(4, start)) == whole[start:]


def test_a_loader_with_workers_goes_on_too() -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(Augmented(), batch_size=3, shuffle=True, num_workers=1)

    whole = numbers(as_batches(loader()).epoch(1))
    assert numbers(as_batches(loader()).epoch(1, 2)) == whole[2:]


def test_skipping_leaves_the_global_generators_alone() -> None:
    before = rng_state()
    assert not list(as_batches(loaders()[0]).epoch(0, 4))
    assert torch.equal(before["torch"], torch.get_rng_state())


def test_a_list_and_a_batches_object_are_taken_as_they_are() -> None:
    batches = [(torch.zeros(2), torch.zeros(2)), (torch.ones(2), torch.ones(2))]
    assert [i.sum().item() for i, _ in as_batches(batches).epoch(9)] == [0, 2]
    tiny = TinyBatches()
    assert as_batches(tiny) is tiny


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (iter([1, 2]), "batches of type list_iterator have no length"),
        (5, "data of type int holds no batches; give a DataLoader"),
        ([], "no batches"),
    ],
)
def test_what_cannot_be_read_again_is_an_error(source: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_batches(source)


@pytest.mark.parametrize("batch", [torch.zeros(2), (1, 2, 3), {"x": 1}])
def test_a_batch_must_be_a_pair(batch: object) -> None:
    with pytest.raises(InputError, match=r"pair \(inputs, targets\)"):
        unpack(batch)


def test_the_batch_size_is_found_in_any_structure() -> None:
    x = torch.zeros(5, 2)
    assert [batch_size(v) for v in (x, (x, 1), {"a": None, "b": x}, torch.tensor(1.0), None)] == [
        5,
        5,
        5,
        1,
        1,
    ]
