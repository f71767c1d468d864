"""Fine-grained sparsity: patterns of zeros and of equal weights, held in training and stored in few bytes."""

from __future__ import annotations
