"""Mapping: which pattern every layer gets, by rules and a latency model, or by search."""

from __future__ import annotations

from billhook.sparse.mapping.candidates import legal
from billhook.sparse.mapping.environment import environment
from billhook.sparse.mapping.latency_table import LatencyModel, LatencyTable, network_latency
from billhook.sparse.mapping.mapping import Mapping
from billhook.sparse.mapping.policy import SearchResult, random_search, search
from billhook.sparse.mapping.problem import MappingProblem, Trial
from billhook.sparse.mapping.rules import map_by_rules
from billhook.sparse.mapping.sharing import share_out

__all__ = [
    "LatencyModel",
    "LatencyTable",
    "Mapping",
    "MappingProblem",
    "SearchResult",
    "Trial",
    "environment",
    "legal",
    "map_by_rules",
    "network_latency",
    "random_search",
    "search",
    "share_out",
]
