"""`Objective`: what a candidate is worth without training it; and the usual one, which inherits weights."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from billhook.graph.inputs import as_call
from billhook.graph.slicing import named_tensors
from billhook.graph.structure import impose_
from billhook.search.problem import SearchProblem
from billhook.search.repair import Reconstruction, reconstruction_of
from billhook.search.sliced import as_fast_, fast_inputs, settle_statistics_, sliced
from billhook.search.space import Genes, Space
from billhook.train.batches import unpack
from billhook.train.losses import check_classification
from billhook.train.placement import device_of, to_device
from billhook.train.precision import DTYPES, resolve_precision


@dataclass(frozen=True)
class Evaluation:
    """What a candidate is worth.

    Attributes:
        accuracy: Of its classes, on the validation images.
        loss: Mean over them.
        seconds: What it took to find out.
    """

    accuracy: float
    loss: float
    seconds: float = 0.0


class Objective(ABC):
    """Judges candidates; goes to other processes, so it holds no open file, lock or graph of gradients.

    Attributes:
        key: Two objectives with the same key judge the same genes the same.
    """

    key: str

    @abstractmethod
    def evaluate(self, genes: Genes) -> Evaluation:
        """Return what one row of genes is worth."""

    def tensors(self, genes: Genes) -> Mapping[str, Tensor] | None:
        """Return a candidate's own parameters, in full size by name; None if it inherits those there were."""
        return None


class InheritedWeights(Objective):
    """Candidates keep the trained weights of what stays, repaired or not.

    Args:
        problem: The network, its data and how candidates are judged.
    """

    def __init__(self, problem: SearchProblem) -> None:
        settings = problem.settings
        self.key = problem.key
        self.space: Space = problem.space
        self._tensors = {n: t.detach() for n, t in named_tensors(problem.model)}
        self._judge = Judge(problem.judged_on, problem.loss, problem.model)
        self._reconstruction: Reconstruction | None = None
        self._settling: list[Any] = []
        if settings.reconstructs:
            self._reconstruction = reconstruction_of(problem)
        if settings.recalibrates:
            device = device_of(problem.model)
            self._settling = [to_device(unpack(b)[0], device) for b in problem.calibration()]

    def evaluate(self, genes: Genes) -> Evaluation:
        """Return what one row of genes is worth."""
        began = time.perf_counter()
        keep = self.space.keep(genes)
        tensors: Mapping[str, Tensor] = self._tensors
        if self._reconstruction is not None:
            tensors = {**self._tensors, **self._reconstruction.tensors(keep)}
        plan = self.space.plan(genes, tensors)
        network = sliced(self.space.graph, plan, tensors)
        weights = dict(network.named_parameters())
        if self._reconstruction is not None:
            self._reconstruction.thin_out_(weights, keep, plan.patterns)
        else:
            impose_(weights, plan.patterns)
        if self._settling:
            settle_statistics_(network, self._settling)
        accuracy, loss = self._judge(network)
        return Evaluation(accuracy, loss, time.perf_counter() - began)


class Judge:
    """Accuracy and loss on batches that are kept in memory, in the arithmetic the machine is fast at.

    Args:
        batches: (inputs, targets).
        loss: Scalar loss of (outputs, targets), a mean over the batch.
        model: Says on which device.
    """

    def __init__(self, batches: list[Any], loss: Any, model: nn.Module) -> None:
        device = device_of(model)
        self.dtype = DTYPES.get(resolve_precision("auto", device.type), torch.float32)
        pairs = [unpack(b) for b in batches]
        self._batches = [
            (fast_inputs(to_device(x, device), self.dtype), to_device(y, device)) for x, y in pairs
        ]
        self._loss = loss

    @torch.no_grad()
    def __call__(self, network: nn.Module) -> tuple[float, float]:
        """Return accuracy and mean loss of a network in eval mode, whose floats change their type."""
        as_fast_(network, self.dtype)
        hits = judged = rows = 0
        losses = 0.0
        for number, (inputs, targets) in enumerate(self._batches):
            args, kwargs = as_call(inputs)
            outputs = network(*args, **kwargs)
            outputs = outputs.float() if isinstance(outputs, Tensor) else outputs
            if not number:
                check_classification(outputs, targets)
            right = targets.argmax(1) if targets.is_floating_point() else targets
            hits += int((outputs.argmax(1) == right).sum())
            judged += right.numel()
            losses += float(self._loss(outputs, targets)) * len(targets)
            rows += len(targets)
        return hits / max(1, judged), losses / max(1, rows)
