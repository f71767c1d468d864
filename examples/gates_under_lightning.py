"""Let a method decide while PyTorch Lightning trains: the callback in a LightningModule's hooks.

Needs `pip install lightning` and scikit-learn.
"""

from __future__ import annotations

import logging
from typing import Any

import lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import billhook
from billhook.train import CallbackDriver


class Classifier(lightning.LightningModule):
    """Trains a network; with `method`, that method decides meanwhile what leaves."""

    def __init__(
        self, network: nn.Module, lr: float, callback: billhook.MethodCallback | None = None
    ) -> None:
        super().__init__()
        self.network, self.lr, self.callback = network, lr, callback
        self.driver: CallbackDriver | None = None
        self.plan: billhook.Plan | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.network.parameters(), lr=self.lr, momentum=0.9)

    def on_train_start(self) -> None:
        optimizer = self.optimizers(use_pl_optimizer=False)
        steps = int(self.trainer.estimated_stepping_batches)
        callbacks = [self.callback] if self.callback else []
        self.driver = CallbackDriver(
            callbacks,
            self.network,
            optimizer,
            total_steps=steps,
            step=self.global_step,  # above 0 where Lightning goes on from a checkpoint
            epoch=self.current_epoch,
        )
        self.attached = self.driver.attached()
        self.attached.__enter__()

    def training_step(self, batch: Any, index: int) -> Tensor:
        images, labels = batch
        self.driver.before_step(images, labels)
        return self.driver.add_terms(F.cross_entropy(self.network(images), labels))

    def on_train_epoch_end(self) -> None:
        self.driver.after_epoch()

    def on_train_end(self) -> None:
        self.attached.__exit__(None, None, None)
        self.plan = next(iter(self.driver.finish()), None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.callback is not None:  # plain data and tensors: Lightning's checkpoint holds the decision too
            checkpoint["pruning"] = self.callback.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.callback is not None:
            self.callback.load_state_dict(checkpoint["pruning"])


def make_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def train(module: Classifier, loader: DataLoader[Any], epochs: int) -> None:
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module.train()  # Lightning leaves modules in the mode it finds them in
    trainer.fit(module, loader)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    return (model(images).argmax(1) == labels).float().mean().item()


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    lightning.seed_everything(0, verbose=False)
    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 16
    labels = torch.from_numpy(digits.target).long()
    loader = DataLoader(TensorDataset(images[:1400], labels[:1400]), batch_size=64, shuffle=True)
    held_out = images[1400:], labels[1400:]

    network = make_network()
    train(Classifier(network, lr=0.1), loader, epochs=8)
    print(f"original      {accuracy(network, *held_out):.1%}")

    budget = billhook.Budget(macs=0.4)
    gates = billhook.pruning_callback(network, images[:1], method="gator", budget=budget)
    gated = Classifier(network, lr=0.05, callback=gates)
    train(gated, loader, epochs=8)
    assert gated.plan is not None
    small = billhook.apply(network, gated.plan)
    print(f"gated         {accuracy(small, *held_out):.1%}")

    train(Classifier(small, lr=0.02), loader, epochs=4)
    print(f"fine-tuned    {accuracy(small, *held_out):.1%}")
    print(f"kept          {gated.plan.counts}")


if __name__ == "__main__":
    main()
