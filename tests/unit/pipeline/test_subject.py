from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from billhook.data import Dataset
from billhook.errors import InputError
from billhook.models import Checkpoint, build
from billhook.pipeline import Subject
from billhook.pipeline import subject as module
from billhook.recipe import Recipe
from billhook.results import Measurement


def recipe(**tables: Any) -> Recipe:
    return Recipe.model_validate({"model": {"name": "resnet-8"}, **tables})


def test_the_data_say_the_channels_the_classes_and_the_shape() -> None:
    subject = Subject(recipe(data={"name": "digits"}))
    inputs = subject.example_inputs
    assert isinstance(inputs, torch.Tensor)
    assert inputs.shape == (1, 1, 8, 8)
    assert subject.model(inputs).shape == (1, 10)


def test_the_network_is_the_same_each_time_and_the_callers_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (Subject(recipe(seed=1)).weights_hash() for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert first == second
    assert first != Subject(recipe(seed=2)).weights_hash()


def test_weights_are_read_from_the_file(tmp_path: Path) -> None:
    torch.manual_seed(7)
    trained = build("resnet-8")
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    subject = Subject(recipe(model={"name": "resnet-8", "weights": str(tmp_path / "w.safetensors")}))
    assert torch.equal(subject.model.state_dict()["conv.weight"], trained.state_dict()["conv.weight"])
    assert subject.weights_from == "w.safetensors"


def test_several_inputs_may_be_positional_or_named() -> None:
    several = Subject(recipe(model={"name": "resnet-8", "input": ["1x3x8x8", "2x4:int64<7"]})).example_inputs
    assert isinstance(several, tuple)
    assert several[1].dtype == torch.int64
    assert int(several[1].max()) < 7
    named = Subject(recipe(model={"name": "resnet-8", "input": ["x=1x3x8x8", "m=1x4:bool"]})).example_inputs
    assert isinstance(named, dict)
    assert named["m"].dtype == torch.bool


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({}, "give --input 1x3x224x224, or --data"),
        (
            {"model": {"name": "resnet-8", "input": ["2x3x8x8"]}, "data": {"name": "digits"}},
            "does not fit the images of digits, which are 1x8x8; leave --input out, or write 2x1x8x8",
        ),
    ],
)
def test_inputs_that_cannot_be_made_are_explained(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _ = Subject(recipe(**tables)).example_inputs


def test_calibration_images_come_in_batches_of_the_training() -> None:
    subject = Subject(recipe(data={"name": "digits", "batch": 64}, prune={"calibration": 150}))
    batches = list(subject.calibration() or ())
    assert [len(targets) for _, targets in batches] == [64, 64, 22]
    assert Subject(recipe()).calibration() is None


@pytest.fixture
def bundled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> nn.Module:
    """Pretend that billhook comes with a trained resnet-8 of width 8 for digits."""
    arguments = {"channels": [8, 16, 32], "in_channels": 1, "num_classes": 10}
    network = build("resnet-8", **arguments)

    class Bundled(Checkpoint):
        def load(self) -> nn.Module:
            return network

    found = Bundled(tmp_path, "resnet-8", arguments, "digits", Measurement(0.9, "1"), "", {})
    monkeypatch.setattr(module, "checkpoint", lambda model, data: found if data == "digits" else None)
    return network


def test_trained_weights_that_come_with_billhook_are_taken_instead_of_training(bundled: nn.Module) -> None:
    subject = Subject(recipe(data={"name": "digits"}, train={"epochs": 2}))
    assert subject.model is bundled
    assert not subject.trains
    assert "channels=[8, 16, 32]" in subject.weights_from


@pytest.mark.parametrize(
    "model",
    [
        {"name": "resnet-8", "args": {"channels": [16, 32, 64]}},
        {"name": "resnet-8", "args": {"in_channels": 1, "stem_stride": 2}},
    ],
)
def test_weights_for_other_arguments_are_not(bundled: nn.Module, model: dict[str, Any]) -> None:
    subject = Subject(recipe(model=model, data={"name": "digits"}, train={"epochs": 2}))
    assert subject.bundled is None
    assert subject.trains


def test_a_data_set_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(recipe(data={"name": "digits"}))
    first = subject.dataset
    assert isinstance(first, Dataset)
    assert subject.dataset is first


FUSED = {"model": {"name": "resnet-8", "input": ["1x3x8x8"]}, "fuse": {"level": "aggressive"}}


@pytest.mark.parametrize("level", ["none", "conservative"])
def test_nothing_is_rewritten_before_pruning_unless_it_widens(level: str) -> None:
    subject = Subject(recipe(**{**FUSED, "fuse": {"level": level}}))
    assert subject.fused is None
    assert subject.prunable is subject.model
    assert subject.prunable_graph is subject.graph


def test_what_is_pruned_is_the_rewritten_network() -> None:
    subject = Subject(recipe(**FUSED))
    assert subject.fused is not None
    assert [site.at for _, site in subject.fused.held] == ["stages.0.0", "stages.1.0", "stages.2.0"]
    assert subject.prunable is subject.fused.network
    assert len(subject.prunable_graph.groups.prunable) > len(subject.graph.groups.prunable)
    with torch.no_grad():
        x = torch.randn(2, 3, 8, 8)
        torch.testing.assert_close(subject.prunable(x), subject.model(x), rtol=1e-4, atol=1e-5)


def test_copies_are_judged_by_their_size_on_the_data() -> None:
    subject = Subject(recipe(data={"name": "digits"}, fuse={"level": "aggressive"}))
    assert subject.fused is not None
    magnitude = subject.fused.network.get_buffer("stages.0.0.copies.magnitude")
    assert len(magnitude.unique()) > 1


def test_a_network_that_has_been_trained_is_rewritten_anew() -> None:
    subject = Subject(recipe(**FUSED))
    assert subject.fused is not None
    with torch.no_grad():
        subject.model.get_parameter("conv.weight").mul_(2)
    subject.weights_changed()
    weight = subject.prunable.get_parameter("conv.weight")
    assert torch.equal(weight, subject.model.get_parameter("conv.weight"))


def test_int8_is_calibrated_on_training_images() -> None:
    table = {"precision": "int8", "calibration": "minmax", "calibration_images": 40}
    found = Subject(recipe(data={"name": "digits"}, export=table)).export_calibration()
    assert found is not None
    assert found.method == "minmax"
    assert [tuple(batch.shape) for batch in found.batches] == [(32, 1, 8, 8), (8, 1, 8, 8)]
    many = Subject(recipe(data={"name": "digits"}, export={"precision": "int8", "calibration_images": 10**6}))
    assert many.dataset is not None
    found = many.export_calibration()
    assert found is not None
    assert sum(len(batch) for batch in found.batches) == len(many.dataset.train)
    assert Subject(recipe(data={"name": "digits"})).export_calibration() is None
    with pytest.raises(InputError, match="int8 needs images"):
        Subject(recipe(export={"precision": "int8"})).export_calibration()
