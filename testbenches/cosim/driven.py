"""Drives a built model without the engine, by the names of its ports."""
import ctypes


class Driven:
    """One instance of a model: ``d["port"]`` is a port's value."""

    def __init__(self, model):
        self.ports, self.library = model.ports, ctypes.CDLL(str(model.library))
        self.library.model_create.restype = self.library.model_port.restype = ctypes.c_void_p
        self.handle = ctypes.c_void_p(self.library.model_create())
        self.at = {name: self.library.model_port(self.handle, i)
                   for i, name in enumerate(model.ports)}

    def bytes(self, name):
        bits = self.ports[name].bits
        return next((n for n in (1, 2, 4, 8) if bits <= 8 * n), (bits + 31) // 32 * 4)

    def __setitem__(self, name, value):
        ctypes.memmove(self.at[name], value.to_bytes(self.bytes(name), "little"),
                       self.bytes(name))

    def __getitem__(self, name):
        return int.from_bytes(ctypes.string_at(self.at[name], self.bytes(name)), "little")

    def cycle(self, tick=0):
        cycle_together([self], tick)

    def outputs(self):
        return {name: self[name] for name, port in self.ports.items() if not port.input}

    def close(self):
        self.library.model_destroy(self.handle)


def cycle_together(instances, tick=0):
    """One clock cycle of several instances of one model; ``tick``: with one of ``hbm_clk``."""
    handles = (ctypes.c_void_p * len(instances))(*(i.handle for i in instances))
    instances[0].library.model_cycle(handles, len(instances), ctypes.c_uint64(0), tick)
