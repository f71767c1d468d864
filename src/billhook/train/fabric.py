"""Precision, placement and processes, from Lightning Fabric; the only file that imports it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from billhook.errors import BillhookError, InputError, MissingExtraError
from billhook.train.config import FitConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

J = TypeVar("J")
R = TypeVar("R")


class Engine:
    """What the training loop needs from Fabric, and nothing else."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self.device: torch.device = fabric.device
        self.rank = int(fabric.global_rank)
        self.world = int(fabric.world_size)
        self._precision = fabric.strategy.precision

    def setup(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, Callable[[], Any]]:
        """Return the network to call in training, and the function that makes a step of the optimiser."""
        network, wrapped = self._fabric.setup(model, optimizer)
        return network, wrapped.step

    def backward(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Compute gradients, in true scale also with 16-mixed."""
        self._fabric.backward(loss)
        self._precision.unscale_gradients(optimizer)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the arithmetic of the run, for networks that are not set up."""
        return self._fabric.autocast()

    def agree(self, value: R) -> R:
        """Return what rank 0 says."""
        return value if self.world == 1 else self._fabric.broadcast(value)

    def gather(self, value: Tensor) -> Tensor:
        """Return the values of all processes, stacked along a new first dimension."""
        if self.world == 1:
            return value[None]
        value = value.to(self.device)
        parts = [torch.empty_like(value) for _ in range(self.world)]
        torch.distributed.all_gather(parts, value)
        return torch.stack(parts)

    def barrier(self) -> None:
        """Wait for all processes."""
        self._fabric.barrier()

    def precision_state(self) -> dict[str, Any]:
        """Return the state of the gradient scaler; empty without one."""
        return dict(self._precision.state_dict())

    def load_precision_state(self, state: dict[str, Any]) -> None:
        """Go on where `precision_state` was taken."""
        self._precision.load_state_dict(state)


def launch(config: FitConfig, work: Callable[[Engine, J], R], job: J) -> R:
    """Return `work(engine, job)`, run here or, with DDP, in `config.devices` processes (then of rank 0).

    Raises:
        MissingExtraError: if Lightning Fabric is not installed.
        InputError: if the accelerator or the number of devices cannot be had.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.utilities.exceptions import MisconfigurationException
    except ImportError:
        raise MissingExtraError("lightning-fabric", "train", "training") from None
    strategy = _strategy(config)
    with _quiet():
        try:
            fabric = Fabric(
                accelerator=config.accelerator,
                devices=config.devices,
                strategy=strategy,
                precision=config.precision,  # type: ignore[arg-type]
            )
        except (MisconfigurationException, RuntimeError, ValueError) as e:
            raise InputError(_unavailable(config, e)) from None
        if strategy in ("auto", "ddp"):
            result: R = fabric.launch(partial(_run, work=work, job=job))
            return result
        return _launch_processes(fabric, work, job)


def _run(fabric: Fabric, work: Callable[[Engine, J], R], job: J) -> R:
    return work(Engine(fabric), job)


def _run_and_part(fabric: Fabric, work: Callable[[Engine, J], R], job: J) -> R:
    result = _run(fabric, work, job)
    # A process that ends while threads of its group still run is sometimes aborted by them.
    torch.distributed.destroy_process_group()
    return result


def _launch_processes(fabric: Fabric, work: Callable[[Engine, J], R], job: J) -> R:
    try:
        result: R = fabric.launch(partial(_run_and_part, work=work, job=job))
    except (ProcessRaisedException, ProcessExitedException) as e:
        last = str(e).strip().splitlines()[-1]
        raise BillhookError(f"a training process failed: {last}") from e
    return result


def _strategy(config: FitConfig) -> str:
    """Fabric's name of the strategy; processes are spawned unless torchrun has already made them."""
    if config.strategy == "ddp-fork":
        return "ddp_fork"
    if config.strategy == "auto" and config.devices == 1:
        return "auto"
    return "ddp" if torch.distributed.is_torchelastic_launched() else "ddp_spawn"


def _unavailable(config: FitConfig, reason: Exception) -> str:
    return (
        f"cannot train with accelerator={config.accelerator!r}, devices={config.devices}, "
        f"strategy={config.strategy!r} on this machine: {reason}"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Fabric's notes on precision and processes off the terminal; warnings stay."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
