"""Steps the dies of a system natively: models, channels, devices, time."""
from cosim.engine.die import Channel, Device, Die, Gate, Join
from cosim.engine.engine import Engine, EngineError

__all__ = ["Channel", "Device", "Die", "Engine", "EngineError", "Gate", "Join"]
