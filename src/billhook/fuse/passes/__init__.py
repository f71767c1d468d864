"""Fusion passes: one file is one pass."""
