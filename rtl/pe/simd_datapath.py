"""The 16 lanes of the SIMD engine, from the elements of both sources to FP32 results."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.common.clockgate import gated_domain
from rtl.common.place import Place
from rtl.mx.formats import Format
from rtl.pe import functions
from rtl.pe.functions import Function, FunctionUnit
from rtl.pe.interfaces import LINE_BITS
from rtl.pe.simd_command import LANES, Source1, command_layout
from rtl.pe.simd_issue import beat_layout, tag_layout
from rtl.pe.simd_lane import AffineLane, BinaryLane

BINARY_CYCLES = 2
AFFINE_CYCLES = 2


class SimdDatapath(wiring.Component):
    """Binary operation, affine, function: each in a clock domain that stands still if unused.

    Latency is 2 cycles, 2 more with affine and 5 more with a function; throughput 1 beat a cycle.
    Everything stands still while ``advance`` is low. The command may change only while not
    ``busy``. Source: this project's choice.

    Members
    -------
    advance : In(1)
        Move by one stage.
    command : In(command_layout())
        The command.
    valid : In(1)
        There is a beat.
    beat : In(beat_layout())
        The beat, taken if ``advance``.
    o_valid : Out(1)
        There is a result, to be taken if ``advance``.
    o : Out(512)
        Sixteen FP32 numbers.
    tag : Out(tag_layout())
        Tag of the beat.
    busy : Out(1)
        Beats are under way.
    """

    advance: In(1)
    command: In(command_layout())
    valid: In(1)
    beat: In(beat_layout())
    o_valid: Out(1)
    o: Out(LINE_BITS)
    tag: Out(tag_layout())
    busy: Out(1)

    def elaborate(self, platform):
        m = Module()
        command = self.command
        affine = command.affine
        function = command.function != Function.NONE
        depth = BINARY_CYCLES + AFFINE_CYCLES + functions.LATENCY
        valids = [self.valid, *(Signal(name=f"valid{i + 1}") for i in range(depth))]
        tags = [self.beat.tag, *(Signal(tag_layout(), name=f"tag{i + 1}") for i in range(depth))]
        with m.If(self.advance):
            for i in range(depth):
                m.d.sync += valids[i + 1].eq(valids[i] & ~(self.o_valid & last_stage(i, command)))
                with m.If(valids[i]):
                    m.d.sync += tags[i + 1].eq(tags[i])
        m.d.comb += self.busy.eq(Cat(valids[1:]).any())

        def under_way(start, cycles):
            """A unit that takes a beat from stage ``start`` has something to do."""
            return self.advance & Cat(valids[start:start + cycles]).any()

        gated_domain(m, name="binary", enable=under_way(0, BINARY_CYCLES))
        gated_domain(m, name="affine", enable=affine & under_way(BINARY_CYCLES, AFFINE_CYCLES))
        gated_domain(m, name="function", enable=function & Mux(
            affine, under_way(BINARY_CYCLES + AFFINE_CYCLES, functions.LATENCY),
            under_way(BINARY_CYCLES, functions.LATENCY)))
        format1 = Mux(command.mode == Source1.SCALAR, Format.FP32, command.format1)
        for lane in range(LANES):
            word = slice(32 * lane, 32 * lane + 32)
            m.submodules[f"binary{lane}"] = binary = Place(BinaryLane(), domain="binary")
            m.submodules[f"affine{lane}"] = scaled = Place(AffineLane(), domain="affine")
            m.submodules[f"function{lane}"] = curved = Place(FunctionUnit(), domain="function")
            straight = Mux(affine, scaled.o, binary.o)
            m.d.comb += [
                binary.a.eq(self.beat.a[word]), binary.b.eq(self.beat.b[word]),
                binary.format0.eq(command.format0), binary.format1.eq(format1),
                binary.operation.eq(command.operation), scaled.x.eq(binary.o),
                scaled.multiplier.eq(command.multiplier), scaled.addend.eq(command.addend),
                curved.x.eq(straight), curved.function.eq(command.function),
                self.o[word].eq(Mux(function, curved.o, straight)),
            ]
        for i in range(1, depth + 1):
            with m.If(last_stage(i, command)):
                m.d.comb += [self.o_valid.eq(valids[i]), self.tag.eq(tags[i])]
        return m


def last_stage(stage, command):
    """Whether the results of a command come out of this stage."""
    affine, function = command.affine, command.function != Function.NONE
    both = {(a, f): BINARY_CYCLES + AFFINE_CYCLES * a + functions.LATENCY * f
            for a in (0, 1) for f in (0, 1)}
    return Cat((affine == a) & (function == f) for (a, f), at in both.items()
               if at == stage).any() if stage in both.values() else C(0)
