"""`Work`: what the stages of one run share, made when first used or read from the run directory."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

from torch import nn

from billhook.data import Dataset
from billhook.graph import Plan, apply, save
from billhook.graph.fusions import fused
from billhook.graph.put_back import put_back
from billhook.graph.storage import load_tensors, read_tensors, write_tensors
from billhook.graph.structure import Structure
from billhook.measure import Artifact
from billhook.pipeline.event import Listener
from billhook.pipeline.run_directory import RunDirectory, storage_errors
from billhook.pipeline.subject import Subject
from billhook.recipe import Recipe
from billhook.results import Cost

ORIGINAL = "original.safetensors"
DECIDED = "decided.safetensors"
SETTLED = "settled.safetensors"
SPARSE = "sparse.safetensors"
WEIGHTS = "weights.safetensors"
PLAN = "plan.json"


class Work:
    """One run in progress.

    Attributes:
        subject: The network, its data and its graph.
        recipe: What was asked for.
        directory: Where everything is kept.
        listen: Who wants to know how it goes.
        bars: Show progress bars in the terminal.
    """

    def __init__(
        self, subject: Subject, directory: RunDirectory, listen: Listener, *, bars: bool = False
    ) -> None:
        self.subject = subject
        self.recipe: Recipe = subject.recipe
        self.directory = directory
        self.listen = listen
        self.bars = bars

    def outcome(self, stage: str) -> dict[str, Any]:
        """Return what a stage handed back; empty if it was not part of the run or has not finished."""
        return self.directory.outcome(stage) or {}

    @property
    def data(self) -> Dataset:
        """The data set; only stages that need one ask for it."""
        assert self.subject.dataset is not None
        return self.subject.dataset

    @cached_property
    def original(self) -> nn.Module:
        """The uncompressed network, trained if the recipe trains it first."""
        model = self.subject.model
        if self.directory.outcome("train") is not None:
            self._read(model, ORIGINAL)
            self.subject.weights_changed()
        return model.eval()

    @cached_property
    def plan(self) -> Plan:
        """What was decided."""
        return Plan.load(self.directory.file(PLAN))

    @cached_property
    def decided(self) -> nn.Module:
        """The network that the plan is for, in full size: the original, or with weights that came later."""
        settled = self.directory.outcome("settle") is not None
        if not settled and self.outcome("decide").get("weights") != "changed":
            return self.original
        model = fused(copy.deepcopy(self.original), self.plan)
        self._read(model, SETTLED if settled else DECIDED)
        return model.eval()

    def pruned(self) -> nn.Module:
        """Return a new smaller network with the weights it has before it is fine-tuned."""
        model = apply(self.decided, self.plan).eval()
        if self.directory.outcome("sparsify") is not None:
            self._read(model, SPARSE, self.plan.patterns)
        return model

    @cached_property
    def compressed(self) -> nn.Module:
        """The smaller network with the weights of the last stage that changed them."""
        model = apply(self.decided, self.plan)
        self._read(model, WEIGHTS, self.plan.patterns)
        return model.eval()

    @property
    def costs(self) -> tuple[Cost, Cost]:
        """Costs of the original and of the smaller network, as far as plans tell."""
        decided = self.outcome("decide")
        after = self.outcome("sparsify").get("after", decided["after"])
        return Cost(**decided["before"]), Cost(**after)

    @property
    def artifacts(self) -> tuple[Artifact, Artifact]:
        """The exported original and compressed network."""
        folder = self.directory.file("artifacts")
        return Artifact.load(folder / "original"), Artifact.load(folder / "compressed")

    def keep_original(self, model: nn.Module) -> None:
        """Keep the weights of an original that this run has trained."""
        path = self.directory.file(ORIGINAL)
        with storage_errors(path):
            write_tensors(path, model)

    def keep_decided(self, model: nn.Module) -> None:
        """Keep the weights that a method has left in the network in full size."""
        path = self.directory.file(DECIDED)
        with storage_errors(path):
            write_tensors(path, model)

    def keep_settled(self, small: nn.Module) -> None:
        """Keep a smaller network that was trained, in full size, for what decides about its weights."""
        model = put_back(self.decided, self.plan, small).eval()
        path = self.directory.file(SETTLED)
        with storage_errors(path):
            write_tensors(path, model)
        self.decided = model
        self.keep_compressed(small)

    def keep_sparse(self, model: nn.Module, plan: Plan) -> None:
        """Keep a network with zeros in its weights and the plan that says so; fine-tuning begins at it."""
        path = self.directory.file(SPARSE)
        with storage_errors(path):
            write_tensors(path, model, structures=plan.patterns)
        self.plan = plan
        self.keep_compressed(model)

    def keep_compressed(self, model: nn.Module) -> None:
        """Keep the weights of the smaller network, so that `billhook.load` can read the run directory."""
        save(self.directory.path, model, self.plan)
        self.compressed = model

    def _read(
        self, model: nn.Module, name: str, structures: Mapping[str, Structure] = MappingProxyType({})
    ) -> None:
        path = self.directory.file(name)
        load_tensors(model, read_tensors(path, structures), str(path))
