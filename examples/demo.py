"""What `make demo` runs: a network trained on Fashion-MNIST, compressed to less than half of its latency.

    python examples/demo.py                     # two to three minutes
    python examples/demo.py --epochs 4          # options of `billhook compress` are understood

Everything it does is in fashion_mnist.toml; `billhook compress examples/fashion_mnist.toml` is the same.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from billhook.cli import main

RECIPE = Path(__file__).with_name("fashion_mnist.toml")

if __name__ == "__main__":
    # The second thread saves 15 s on two idle cores; on shared ones two threads wait for each other and take
    # five times as long as one.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.argv[1:] = ["compress", str(RECIPE), *sys.argv[1:]]
    main()
