"""Patterns: which weights of a tensor may be zero or equal. One file is one pattern."""
