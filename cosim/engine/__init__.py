"""Steps the dies of a system natively: models, channels, devices, time."""
from cosim.engine.die import (
    Channel,
    Device,
    Die,
    Gate,
    Join,
    bus_pins,
    host_memory,
    register_master,
)
from cosim.engine.engine import Engine, EngineError

__all__ = ["Channel", "Device", "Die", "Engine", "EngineError", "Gate", "Join", "bus_pins",
           "host_memory", "register_master"]
