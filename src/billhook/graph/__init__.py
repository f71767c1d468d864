"""The network as a graph: capture, labels, groups, costs; and the plan, applied and verified."""

from __future__ import annotations

from billhook.graph.apply import apply, apply_
from billhook.graph.branches import Branch
from billhook.graph.cost import CostModel
from billhook.graph.exported import ExportedNetwork
from billhook.graph.graph import Graph, capture, cost, groups, make_plan
from billhook.graph.groups import ChannelGroup, Groups, Member, Reason
from billhook.graph.inputs import ExampleInputs
from billhook.graph.plan import Plan
from billhook.graph.scope import Scope
from billhook.graph.silence import SilencedNetwork, silence
from billhook.graph.storage import load, save
from billhook.graph.verify import verify

__all__ = [
    "Branch",
    "ChannelGroup",
    "CostModel",
    "ExampleInputs",
    "ExportedNetwork",
    "Graph",
    "Groups",
    "Member",
    "Plan",
    "Reason",
    "Scope",
    "SilencedNetwork",
    "apply",
    "apply_",
    "capture",
    "cost",
    "groups",
    "load",
    "make_plan",
    "save",
    "silence",
    "verify",
]
