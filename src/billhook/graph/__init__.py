"""The network as a graph: capture, labels, groups, costs; and the plan, applied and verified."""

from billhook.graph.graph import Graph, capture, cost, groups, make_plan
from billhook.graph.groups import ChannelGroup, Groups, Member, Reason
from billhook.graph.inputs import ExampleInputs
from billhook.graph.plan import Plan
from billhook.graph.scope import Scope

__all__ = [
    "ChannelGroup", "ExampleInputs", "Graph", "Groups", "Member", "Plan", "Reason", "Scope", "capture", "cost", "groups", "make_plan",
]  # fmt: skip
