"""Collectives between packages: plans, programs for message engines, and groups of ranks."""
from host.collectives.cost import ALGORITHMS, Topology, choose, predict, table
from host.collectives.order import Order
from host.collectives.plan import Plan, plan
from host.collectives.program import Binding, EngineProgram, Place

__all__ = ["ALGORITHMS", "Binding", "EngineProgram", "Order", "Place", "Plan", "Topology",
           "choose", "plan", "predict", "table"]
