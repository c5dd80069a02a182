"""Collectives between packages: plans, programs for message engines, and groups of ranks."""
from host.collectives.cost import ALGORITHMS, Topology, choose, predict, table
from host.collectives.group import Buffer, CollectiveError, Group, Handle
from host.collectives.order import Order
from host.collectives.plan import Plan, plan
from host.collectives.program import Binding, EngineProgram, Place
from host.collectives.system import Port, Rail, System, Transport, rails_of

__all__ = ["ALGORITHMS", "Binding", "Buffer", "CollectiveError", "EngineProgram", "Group", "Handle",
           "Order", "Place", "Plan", "Port", "Rail", "System", "Topology", "Transport", "choose",
           "plan", "predict", "rails_of", "table"]
