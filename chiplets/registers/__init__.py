"""Register descriptions (SystemRDL), as plain Python for hardware, driver and documentation."""
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from systemrdl import RDLCompiler
from systemrdl.node import RegNode

STORED, STATUS, DOORBELL, COMMAND, STICKY = "stored", "status", "doorbell", "command", "sticky"


@dataclass(frozen=True)
class Field:
    """Bits ``low + width - 1 : low``; ``access`` is one of the five words above."""

    name: str
    low: int
    width: int
    reset: int
    access: str
    description: str


@dataclass(frozen=True)
class Register:
    """A register of 32 bits at a byte offset; those of an instance are named ``instance_name``."""

    name: str
    offset: int
    fields: tuple[Field, ...]
    description: str

    def field(self, name):
        return next(field for field in self.fields if field.name == name)


def _access(node):
    if node.get_property("onwrite") is not None:
        return STICKY
    if node.get_property("swmod"):
        return DOORBELL if node.is_sw_readable else COMMAND
    return STORED if node.is_sw_writable else STATUS


def _read(node, path):
    fields = tuple(Field(f.inst_name, f.low, f.width, f.get_property("reset") or 0, _access(f),
                         f.get_property("desc") or "") for f in node.fields())
    return Register("_".join(path), node.absolute_address, fields, node.get_property("desc") or "")


def _walk(node, path=()):
    for child in node.children():
        name = (*path, child.inst_name)
        if isinstance(child, RegNode):
            yield _read(child, name)
        else:
            yield from _walk(child, name)


@cache
def load(name: str) -> dict[str, Register]:
    """Registers of the description ``name`` (``io`` for ``io.rdl``), by name in address order."""
    compiler = RDLCompiler()
    compiler.compile_file(str(Path(__file__).with_name(f"{name}.rdl")))
    top = compiler.elaborate().top
    return {register.name: register for register in _walk(top)}
