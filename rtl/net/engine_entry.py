"""What an entry of a message engine asks for, and whether it can be done."""
from amaranth import *
from amaranth.lib import enum

from rtl.mx.formats import Format
from rtl.net.interfaces import Compare, EngineKind, Opcode, work_layout
from rtl.net.near_memory import LANES, is_block_format
from rtl.pe.interfaces import ADDRESS_BITS, LINE_BYTES, ErrorCode

RULES = 4
# Words of an entry, as fields of an error.
HEAD, LENGTH, LOCAL, REMOTE, THIRD, RULE, SCALES_S, SCALES_A, SCALES_B = (
    0, 1, 2, 4, 6, 11, 12, 13, 14)


class Task(enum.Enum, shape=3):
    """Who does an entry."""

    MOVE = 0
    WAIT = 1
    SET = 2
    DOORBELL = 3
    ARRIVE = 4
    NOTHING = 5     # a move of no bytes: it ends as it starts


TASKS = {
    Task.MOVE: (EngineKind.REDUCE, EngineKind.COPY), Task.WAIT: (EngineKind.WAIT,),
    Task.SET: (EngineKind.SET,), Task.ARRIVE: (EngineKind.ARRIVE,),
    Task.DOORBELL: (EngineKind.SEND, EngineKind.WRITE, EngineKind.WRITE_IMM, EngineKind.READ,
                    EngineKind.RECV)}


def checked(m, entry):
    """The task of an entry; the code and field of what is wrong with it, of the lowest word."""
    task, code, field = Signal(Task), Signal(ErrorCode), Signal(8)

    def require(good, word):
        """Later calls go before: those of lower words."""
        with m.If(~good):
            m.d.comb += [code.eq(ErrorCode.BAD_FIELD), field.eq(word)]

    def require_address(value, word, *, unit):
        require(~value[ADDRESS_BITS:].any(), word + 1)
        require(value % unit == 0, word)

    with m.Switch(entry.kind):
        for name, kinds in TASKS.items():
            with m.Case(*kinds):
                m.d.comb += task.eq(name)
        with m.Default():
            m.d.comb += code.eq(ErrorCode.BAD_COMMAND)
    with m.Switch(task):
        with m.Case(Task.MOVE):
            adds, mx = entry.kind == EngineKind.REDUCE, is_block_format(entry.format)
            wide = entry.format == Format.FP32
            with m.If(mx):
                with m.If(adds):
                    require(entry.scales_b % LINE_BYTES == 0, SCALES_B)
                require(entry.scales_a % LINE_BYTES == 0, SCALES_A)
                require(entry.scales_s % LINE_BYTES == 0, SCALES_S)
                require(entry.rule < RULES, RULE)
            with m.If(adds):
                require(~entry.third[ADDRESS_BITS:].any(), THIRD + 1)
                require(~mx | (entry.third % LINE_BYTES == 0), THIRD)
            require(~entry.remote[ADDRESS_BITS:].any(), REMOTE + 1)
            require(~mx | (entry.remote % LINE_BYTES == 0), REMOTE)
            require_address(entry.local, LOCAL, unit=LINE_BYTES)
            require(~mx | (entry.length % LANES == 0), LENGTH)
            with m.If(adds & ~mx):
                require(entry.length % 2 == 0, LENGTH)
                require(~wide | (entry.length % 4 == 0), LENGTH)
            require(entry.format <= Format.E5M2.value, HEAD)
        with m.Case(Task.WAIT):
            require_address(entry.local, LOCAL, unit=4)
            require(entry.compare <= Compare.AT_LEAST.value, HEAD)
        with m.Case(Task.SET):
            require_address(entry.local, LOCAL, unit=4)
        with m.Case(Task.DOORBELL):
            require_address(entry.third, THIRD, unit=LINE_BYTES)
    empty = (task == Task.MOVE) & (entry.length == 0)
    return Mux(empty, Task.NOTHING, task), code, field


def work_request(entry, cookie):
    """The line for the doorbell of an entry of a NIC kind."""
    fields = {"opcode": entry.kind, "flags": C(0, 8), "cookie": cookie}
    layout = work_layout()
    return Cat(fields.get(name, C(0, layout[name].width)) if name in fields or name == "_unused"
               else entry[name] for name, _ in layout)


assert all(Opcode[kind.name].value == kind.value
           for kind in TASKS[Task.DOORBELL])
