"""Shared parameters: one set of weights, trained for a whole population at once, judges its members."""
