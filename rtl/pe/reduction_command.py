"""Commands as the reduction engine reads them: what it does to a line, and what it refuses."""
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.isa import OPCODE, Opcode, word
from rtl.pe.frontend import OperandField
from rtl.pe.interfaces import LINE_BITS, grant_layout
from rtl.pe.operand_tensor import stride_fits

DESTINATION, SOURCE = range(2)      # index into the grants of a job
OPERANDS = (OperandField(6, producer=True), OperandField(11, optional=True))


def task_layout():
    """What a job's lines need.

    ``accumulate``: the earlier line, or that of the source, is added. ``weigh``: they come with
    factors, ``last``: the result is multiplied by the inverse. ``reduce``: they do not come from
    the dot-product engine, but, with ``receive``, from the ring. ``send``: they go there.
    """
    return data.StructLayout({"accumulate": 1, "weigh": 1, "last": 1, "reduce": 1, "receive": 1,
                              "send": 1})


class ReductionDecoder(wiring.Component):
    """Reads a ``DOT``, ``WEIGH`` or ``REDUCE`` command. Latency is 0 cycles.

    Refused, with the number of the word: bits of ``REDUCE`` without a meaning, or no lines from
    anywhere (1), no lines (8), a stride longer than its CB (9 source, 10 destination), a source
    that is needed and absent (11).

    Parameters
    ----------
    lines : int
        Size of local memory [line].
    attention : bool
        Takes ``WEIGH`` too.

    Members
    -------
    command : In(512)
        The command.
    grants : In(grant_layout(lines=lines)).array(2)
        Destination and source.
    task : Out(task_layout())
        What its lines need.
    rows : Out(16)
        How many there are.
    refused, field : Out(1), Out(4)
        It is refused; number of the word, the lowest if several are wrong.
    """

    def __init__(self, *, lines, attention):
        self.attention = attention
        super().__init__({
            "command": In(LINE_BITS), "grants": In(grant_layout(lines=lines)).array(len(OPERANDS)),
            "task": Out(task_layout()), "rows": Out(16), "refused": Out(1), "field": Out(4)})

    def elaborate(self, platform):
        m = Module()
        options, size = word(self.command, 1), word(self.command, 8)
        opcode, task = self.command[OPCODE], self.task
        columns, reduce = size[:16], opcode == Opcode.REDUCE
        weigh = opcode == Opcode.WEIGH if self.attention else C(0)
        receive, local, send = (reduce & options[bit] for bit in range(3))
        pair = weigh & options[10]      # two columns a line
        m.d.comb += [
            self.rows.eq(Mux(pair, (columns + 1) >> 1, columns)),
            task.accumulate.eq(Mux(reduce, local, options[9])), task.weigh.eq(weigh),
            task.last.eq(weigh & options[12]), task.reduce.eq(reduce), task.receive.eq(receive),
            task.send.eq(send)]
        source, destination = self.grants[SOURCE], self.grants[DESTINATION]
        wrong = (
            (1, reduce & (options[3:].any() | ~(receive | local))),
            (8, (columns == 0) | (reduce & size[16:].any())),
            (9, local & ~stride_fits(word(self.command, 9)[:16], source, self.rows)),
            (10, ~send & ~stride_fits(word(self.command, 10)[:16], destination, self.rows)),
            (11, local & (source.limit == 0)))
        for field, condition in reversed(wrong):
            with m.If(condition):
                m.d.comb += [self.refused.eq(1), self.field.eq(field)]
        return m
