"""Half of the MACs of a torchvision network: what can leave, what may not and why, and the proof."""

from __future__ import annotations

import contextlib
import sys

import torch

import billhook


def declare_operators() -> None:
    """Declare two operators of torchvision's compiled part, which some installations of it lack.

    Without them `import torchvision` fails, although its classifiers use neither.
    """
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        with contextlib.suppress(RuntimeError):  # declared already: the compiled part is there
            torch.library.define(f"torchvision::{schema.partition('(')[0]}", schema[schema.index("(") :])


def main() -> int:
    try:
        import torchvision
    except RuntimeError:
        declare_operators()
        import torchvision
    except ImportError:
        print("torchvision is not installed: pip install --no-deps torchvision", file=sys.stderr)
        return 0

    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v2(weights=None).eval()  # your trained weights go here
    image = torch.randn(1, 3, 96, 96)

    groups = billhook.groups(model, image)
    print(f"{len(groups.prunable)} of {len(groups)} groups can shrink")
    for group in groups.frozen:
        print(f"  {group.id} cannot: {group.frozen}")

    plan = billhook.prune(model, image, budget=billhook.Budget(macs=0.5))
    small = billhook.apply(model, plan)
    check = billhook.verify(model, plan, image)
    print(f"removing equals silencing: {check.exact}, largest difference {check.max_abs_error:.1e}")

    before, after = billhook.cost(model, image), billhook.cost(model, image, plan)
    print(f"MACs {before.macs:,} → {after.macs:,}; parameters {before.params:,} → {after.params:,}")
    print(f"output {tuple(small(image).shape)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
