"""`Subject`: the network of a recipe, its data and its graph, each made when it is first used."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from billhook.compile.int8.calibration import Calibration
from billhook.data import Dataset, load
from billhook.errors import InputError
from billhook.fuse import Fused, fuse
from billhook.graph import ExampleInputs, Graph, capture
from billhook.models import Checkpoint, checkpoint, load_weights, resolve
from billhook.pipeline.given import with_patterns
from billhook.recipe import InputSpec, Recipe, parse_inputs
from billhook.train import Batches

CALIBRATION_BATCH = 32


class Subject:
    """What a recipe is about.

    The network is the same every time it is made: user code runs with torch's generator seeded by the
    recipe, on a fork that leaves the caller's generator alone.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = with_patterns(recipe)

    @cached_property
    def dataset(self) -> Dataset | None:
        """The data set, None if the recipe names none."""
        wanted = self.recipe.data
        if wanted is None:
            return None
        return load(
            wanted.name,
            wanted.dir,
            fetch=wanted.fetch,
            image_size=wanted.image_size,
            workers=wanted.workers,
        )

    @cached_property
    def bundled(self) -> Checkpoint | None:
        """The trained weights that come with billhook and fit the recipe, None if there are none."""
        wanted = self.recipe.model
        if wanted.weights or self.dataset is None or ":" in wanted.name:
            return None
        found = checkpoint(wanted.name, self.dataset.name)
        if found is None or any(found.arguments.get(k) != v for k, v in wanted.args.items()):
            return None
        return found

    @cached_property
    def model(self) -> nn.Module:
        """The original network, in eval mode."""
        wanted = self.recipe.model
        if self.bundled is not None:
            return self.bundled.load().eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            model = resolve(wanted.name, wanted.args, defaults=self._defaults)
        if wanted.weights:
            load_weights(model, Path(wanted.weights))
        return model.eval()

    @property
    def trains(self) -> bool:
        """True if the original is to be trained first; weights that come with billhook make that needless."""
        return self.recipe.train is not None and self.recipe.train.wanted and self.bundled is None

    @property
    def weights_from(self) -> str:
        """Where the original's weights come from, in words; "" if they are random."""
        wanted = self.recipe.model
        if self.bundled is not None:
            arguments = ", ".join(f"{k}={v}" for k, v in self.bundled.arguments.items())
            return f"trained on {self.bundled.dataset}, come with billhook ({arguments})"
        if wanted.weights:
            return Path(wanted.weights).name
        return wanted.name if ":" in wanted.name else ""

    @cached_property
    def example_inputs(self) -> ExampleInputs:
        """One batch: of the data, or made up in the shapes of the recipe.

        Raises:
            InputError: if the recipe has neither data nor shapes, or they do not fit together.
        """
        specs = parse_inputs(self.recipe.model.input)
        batch = self.recipe.measure.batch or 1
        if self.dataset is None:
            if not specs:
                raise InputError("the shape of the input is missing: give --input 1x3x224x224, or --data")
            return _made_up(specs, self.recipe.seed)
        if specs:
            expected, given = tuple(self.dataset.input_shape), specs[0].shape
            if len(specs) > 1 or given[1:] != expected:
                raise InputError(
                    f"input {_text(given)} does not fit the images of {self.dataset.name}, which are "
                    f"{_text(expected)}; leave --input out, or write {_text((given[0], *expected))}"
                )
            batch = given[0]
        return self.dataset.calibration(batch, seed=self.recipe.seed)[0]

    @cached_property
    def graph(self) -> Graph:
        """The captured network with its groups and cost formulas."""
        # torch prints half-made graphs to stderr before it raises; our error says what a person needs.
        with contextlib.redirect_stderr(io.StringIO()):
            return capture(self.model, self.example_inputs, mixing=self.recipe.prune.mixing)

    @cached_property
    def fused(self) -> Fused | None:
        """The original rewritten so that more of it can leave, None if the recipe wants no such thing."""
        fusion = self.recipe.fuse.to_fusion()
        if fusion.level != "aggressive":
            return None
        with contextlib.redirect_stderr(io.StringIO()):
            return fuse(self.model, self.example_inputs, fusion, data=self.calibration())

    @property
    def prunable(self) -> nn.Module:
        """What is pruned: the rewritten network, or the original."""
        return self.model if self.fused is None else self.fused.network

    @cached_property
    def prunable_graph(self) -> Graph:
        """The graph of what is pruned."""
        if self.fused is None:
            return self.graph
        with contextlib.redirect_stderr(io.StringIO()):
            return capture(self.fused.network, self.example_inputs, mixing=self.recipe.prune.mixing)

    def weights_changed(self) -> None:
        """Forget what holds copies of the original's weights: it has been trained since."""
        for name in ("fused", "prunable_graph"):
            self.__dict__.pop(name, None)

    @property
    def preprocessing(self) -> dict[str, Any] | None:
        """How an image becomes an input and an output a class, for manifests; None without data."""
        if self.dataset is None:
            return None
        return {**self.dataset.preprocessing, "classes": list(self.dataset.classes)}

    def calibration(self) -> Iterable[tuple[Tensor, Tensor]] | None:
        """Return training images that a method may learn from, None without data."""
        if self.dataset is None or self.recipe.data is None:
            return None
        count = min(self.recipe.prune.calibration, len(self.dataset.train))
        inputs, targets = self.dataset.calibration(count, seed=self.recipe.seed)
        size = self.recipe.data.batch
        return list(zip(torch.split(inputs, size), torch.split(targets, size), strict=True))

    def export_calibration(self) -> Calibration | None:
        """Return the training images that ranges are found on for int8; None for float32.

        Raises:
            InputError: if there are no data.
        """
        wanted = self.recipe.export
        if wanted.precision == "float32":
            return None
        if self.dataset is None:
            raise InputError(
                "int8 needs images to find the ranges of values on: give --data, or a [data] table in the "
                "recipe"
            )
        count = min(wanted.calibration_images, len(self.dataset.train))
        inputs, _ = self.dataset.calibration(count, seed=self.recipe.seed)
        return Calibration(torch.split(inputs, CALIBRATION_BATCH), wanted.calibration)

    def training(self) -> Batches | None:
        """Return the training split, augmented, for training a network; None without data."""
        if self.dataset is None or self.recipe.data is None:
            return None
        return self.dataset.training(self.recipe.data.batch, seed=self.recipe.seed)

    def validation(self) -> Batches | None:
        """Return the validation split (its first `limit` images, if that is set), None without data."""
        if self.dataset is None or self.recipe.data is None:
            return None
        return self.dataset.evaluation("validation", limit=self.recipe.data.limit)

    def weights_hash(self) -> str:
        """Return a hash of the original's weights, to notice that a resumed run has other ones."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @property
    def _defaults(self) -> dict[str, Any]:
        if self.dataset is None:
            return {}
        return {"num_classes": len(self.dataset.classes), "in_channels": self.dataset.input_shape[0]}


def _made_up(specs: tuple[InputSpec, ...], seed: int) -> ExampleInputs:
    generator = torch.Generator().manual_seed(seed)
    values = [_tensor(spec, generator) for spec in specs]
    if specs[0].name:
        return {spec.name: value for spec, value in zip(specs, values, strict=True)}
    return values[0] if len(values) == 1 else tuple(values)


def _tensor(spec: InputSpec, generator: torch.Generator) -> Tensor:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    if dtype.is_floating_point:
        return torch.randn(spec.shape, generator=generator).to(dtype)
    return torch.randint(0, 2 if dtype is torch.bool else spec.below, spec.shape, generator=generator).to(
        dtype
    )


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape)
