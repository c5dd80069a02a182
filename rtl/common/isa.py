"""Commands of a PE, hardware side: opcodes and the units they go to.

The table is this project's choice; docs/programming-model.md describes it for programmers.
"""
from dataclasses import dataclass

from amaranth.lib import enum

from rtl.pe.interfaces import Unit

COMMAND_WORDS = 16
OPCODE = slice(0, 8)            # bits of a command
TAG = slice(16, 32)


class Opcode(enum.Enum, shape=8):
    """What a command does."""

    NOP = 0x00
    CB_CONFIG = 0x01
    FENCE = 0x02
    BARRIER = 0x03
    END = 0x0F
    DMA_IN = 0x10
    DMA_OUT = 0x11
    GATHER = 0x12
    LOAD_A = 0x20
    DOT = 0x21
    SCORE = 0x22
    WEIGH = 0x23
    REDUCE = 0x24
    SIMD = 0x30
    TRANSPOSE = 0x40


@dataclass(frozen=True)
class Route:
    """The units that take a command, each of them all of it; ``needs``: that must be there too."""

    opcode: Opcode
    units: tuple
    needs: tuple = ()

    def open_to(self, present):
        """Whether a PE with the units ``present`` knows the command."""
        return set(self.units) | set(self.needs) <= set(present)


ROUTES = (
    Route(Opcode.DMA_IN, (Unit.DMA_IN,)),
    Route(Opcode.GATHER, (Unit.DMA_IN,)),
    Route(Opcode.DMA_OUT, (Unit.DMA_OUT,)),
    Route(Opcode.LOAD_A, (Unit.A_LOADER,)),
    Route(Opcode.DOT, (Unit.DOT, Unit.REDUCTION)),
    Route(Opcode.SCORE, (Unit.DOT, Unit.SOFTMAX)),
    Route(Opcode.WEIGH, (Unit.DOT, Unit.REDUCTION), (Unit.SOFTMAX,)),
    Route(Opcode.REDUCE, (Unit.REDUCTION,)),
    Route(Opcode.SIMD, (Unit.SIMD,)),
    Route(Opcode.TRANSPOSE, (Unit.LAYOUT,)),
)


def word(command, index):
    """Word ``index`` of a command of 512 bits, word 0 lowest."""
    return command[32 * index:32 * index + 32]


# CB_CONFIG: words of its fields, which are also the numbers of a refused field.
CONFIG_BUFFER, CONFIG_BASE, CONFIG_SIZE = 1, 2, 3
