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
from rtl.pe.simd_command import LANES, Norm, Operation, Source1, command_layout
from rtl.pe.simd_issue import GROUP, Sweep, beat_layout, tag_layout
from rtl.pe.simd_lane import AffineLane, BinaryLane, Path
from rtl.pe.simd_sweep import MEAN_CYCLES, SCALE_CYCLES, Statistics

BINARY_CYCLES = 2
NORM_CYCLES = 3         # of the binary lanes in a norm
AFFINE_CYCLES = 2
MINUS_ZERO = 1 << 31    # a term that changes no sum


class SimdDatapath(wiring.Component):
    """Binary operation, affine, function: each in a clock domain that stands still if unused.

    Latency is 2 cycles, 2 more with affine or ROTATE and 5 more with a function; in a norm 5 to
    results, 3 to terms. Throughput 1 beat a cycle. The means of a norm are made of sums in 2
    cycles, the scales in 7, all 16 at a time in the lanes of affine and function. Everything
    stands still while ``advance`` is low. The command may change only while not ``busy``. Source:
    this project's choice.

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
    term_valid, term, term_tag : Out
        The same for what is added up for the statistics of a norm.
    sum_valid, sum, sum_index, sum_squares : In(1), In(32), In(range(GROUP)), In(1)
        A row's sum comes, if ``advance``: the sum, the row, and whether it is one of squares.
    fire : In(1)
        All rows' sums have come; the last ``sum_squares`` still holds. Only with ``advance``.
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
    term_valid: Out(1)
    term: Out(LINE_BITS)
    term_tag: Out(tag_layout())
    sum_valid: In(1)
    sum: In(32)
    sum_index: In(range(GROUP))
    sum_squares: In(1)
    fire: In(1)
    busy: Out(1)

    def elaborate(self, platform):
        m = Module()
        command, norm = self.command, self.command.norm != Norm.NONE
        rotates = command.operation == Operation.ROTATE
        function = command.function != Function.NONE
        depth = BINARY_CYCLES + AFFINE_CYCLES + functions.LATENCY
        valids = [self.valid, *(Signal(name=f"valid{i + 1}") for i in range(depth))]
        tags = [self.beat.tag, *(Signal(tag_layout(), name=f"tag{i + 1}") for i in range(depth))]
        with m.If(self.advance):
            for i in range(depth):
                leaves = last_stage(i, command) | (self.term_valid if i == NORM_CYCLES else 0)
                m.d.sync += valids[i + 1].eq(valids[i] & ~leaves)
                with m.If(valids[i]):
                    m.d.sync += tags[i + 1].eq(tags[i])
        m.d.comb += self.busy.eq(Cat(valids[1:]).any())
        for i in range(1, depth + 1):
            with m.If(last_stage(i, command)):
                m.d.comb += [self.o_valid.eq(valids[i] & ~tags[i].addend), self.tag.eq(tags[i])]
        m.d.comb += [self.term_tag.eq(tags[NORM_CYCLES]), self.term_valid.eq(
            norm & valids[NORM_CYCLES] & (self.term_tag.sweep != Sweep.RESULT))]

        m.submodules.statistics = statistics = Statistics()
        fired, squares = self._fire(m, statistics)
        m.d.comb += [statistics.mean_row.eq(tags[BINARY_CYCLES].row),
                     statistics.scale_row.eq(tags[NORM_CYCLES].row)]
        self._domains(m, valids, fired, squares)
        affine = command.affine | rotates | norm
        curves = function | (fired[SCALE_CYCLES] & squares)
        binaries, scalers = [], []
        for lane in range(LANES):
            word = slice(32 * lane, 32 * lane + 32)
            m.submodules[f"binary{lane}"] = binary = Place(BinaryLane(), domain="binary")
            m.submodules[f"affine{lane}"] = scaled = Place(AffineLane(), domain="affine")
            m.submodules[f"function{lane}"] = curved = Place(FunctionUnit(), domain="function")
            binaries.append(binary)
            scalers.append(scaled)
            straight = Mux(affine, scaled.o, binary.o)
            m.d.comb += [
                binary.a.eq(self.beat.a[word]), binary.b.eq(self.beat.b[word]),
                curved.x.eq(straight), self.term[word].eq(binary.o),
                curved.function.eq(Mux(norm, Function.RSQRT, command.function)),
                self.o[word].eq(Mux(curves, curved.o, straight)),
            ]
        self._binary(m, binaries, tags, statistics)
        self._affine(m, scalers, binaries, valids, tags, statistics, fired, squares)
        return m

    def _fire(self, m, statistics):
        """Statistics from sums; gives the cycles since ``fire``, one high, and "of squares"."""
        since, squares = Signal(SCALE_CYCLES), Signal()
        fired = Cat(self.fire, since)
        with m.If(self.advance):
            m.d.sync += since.eq(fired)
        with m.If(self.fire):
            m.d.sync += squares.eq(self.sum_squares)
        m.d.comb += [
            statistics.store.eq(self.sum_valid & self.advance), statistics.sum.eq(self.sum),
            statistics.index.eq(self.sum_index), statistics.squares.eq(self.sum_squares),
            statistics.replace_means.eq(self.advance & fired[MEAN_CYCLES] & ~squares),
            statistics.replace_scales.eq(self.advance & fired[SCALE_CYCLES] & squares),
            statistics.statistics.eq(self.o),
        ]
        return fired, squares

    def _domains(self, m, valids, fired, squares):
        """Clocks of the lanes' units, which run while there is something to take a stage on."""
        command, norm = self.command, self.command.norm != Norm.NONE
        rotates = command.operation == Operation.ROTATE
        affine, function = command.affine | rotates, command.function != Function.NONE

        def under_way(start, cycles):
            """A unit that takes a beat from stage ``start`` has something to do."""
            return self.advance & Cat(valids[start:start + cycles]).any()

        gated_domain(m, name="binary", enable=Mux(
            norm | rotates, under_way(0, NORM_CYCLES), under_way(0, BINARY_CYCLES)))
        gated_domain(m, name="affine", enable=Mux(
            norm, self.advance & ((valids[NORM_CYCLES] & ~self.term_valid)
                                  | valids[NORM_CYCLES + 1] | fired[:AFFINE_CYCLES].any()),
            affine & under_way(BINARY_CYCLES, AFFINE_CYCLES)))
        gated_domain(m, name="function", enable=Mux(
            norm, self.advance & squares & fired[AFFINE_CYCLES:SCALE_CYCLES].any(),
            function & Mux(affine, under_way(BINARY_CYCLES + AFFINE_CYCLES, functions.LATENCY),
                           under_way(BINARY_CYCLES, functions.LATENCY))))

    def _binary(self, m, lanes, tags, statistics):
        """What the binary lanes do with the beats in them."""
        command, layer = self.command, self.command.norm == Norm.LAYER
        path, centre = Signal(Path), Signal()
        m.d.comb += centre.eq(layer & (tags[BINARY_CYCLES].sweep != Sweep.SUM))
        with m.If(command.operation == Operation.ROTATE):
            m.d.comb += path.eq(Path.ROTATE)
        with m.Elif(command.norm != Norm.NONE):
            with m.Switch(tags[NORM_CYCLES].sweep):
                with m.Case(Sweep.SUM):
                    m.d.comb += path.eq(Path.PASS)
                with m.Case(Sweep.SQUARE):
                    m.d.comb += path.eq(Path.SQUARE)
                with m.Default():
                    m.d.comb += path.eq(Path.SCALE)
        format1 = Mux(command.mode == Source1.SCALAR, Format.FP32, command.format1)
        for number, lane in enumerate(lanes):
            m.d.comb += [
                lane.format0.eq(command.format0), lane.format1.eq(format1),
                lane.operation.eq(command.operation), lane.path.eq(path), lane.centre.eq(centre),
                lane.mean.eq(statistics.mean), lane.scale.eq(statistics.scale),
                lane.cosine.eq(lanes[number & ~1].y)]

    def _affine(self, m, lanes, binaries, valids, tags, statistics, fired, squares):
        """What the affine lanes take, and what they do with it."""
        command, norm = self.command, self.command.norm != Norm.NONE
        rotates = command.operation == Operation.ROTATE
        addend, own, keep, kept = Signal(32), Signal(), Signal(), Signal()
        m.d.comb += [
            addend.eq(Mux(norm & ~(fired[MEAN_CYCLES] & squares), MINUS_ZERO, command.addend)),
            own.eq(rotates | (norm & ~fired[1])),
            keep.eq(valids[NORM_CYCLES + 1] & tags[NORM_CYCLES + 1].addend),
            kept.eq(rotates | ((command.norm == Norm.LAYER) & ~fired[MEAN_CYCLES])),
        ]
        for number, lane in enumerate(lanes):
            binary, partner = binaries[number], binaries[number ^ 1]
            summed = statistics.sums.word_select(number, 32)
            m.d.comb += [
                lane.x.eq(Mux(rotates, partner.x, Mux(self.fire, summed, binary.o))),
                lane.side.eq(Mux(rotates, binaries[number | 1].y, binary.side)),
                lane.along.eq(binary.o), lane.crossed.eq(rotates), lane.keep.eq(keep),
                lane.own.eq(own), lane.kept.eq(kept), lane.multiplier.eq(command.multiplier),
                lane.addend.eq(addend), lane.subtract.eq(rotates & (number % 2 == 0))]


def last_stage(stage, command):
    """Whether the results of a command come out of this stage."""
    norm = command.norm != Norm.NONE
    affine = command.affine | (command.operation == Operation.ROTATE)
    function = command.function != Function.NONE
    both = {(a, f): BINARY_CYCLES + AFFINE_CYCLES * a + functions.LATENCY * f
            for a in (0, 1) for f in (0, 1)}
    plain = [(affine == a) & (function == f) for (a, f), at in both.items() if at == stage]
    results = norm if stage == NORM_CYCLES + AFFINE_CYCLES else C(0)
    return Mux(norm, results, Cat(plain).any() if plain else C(0))
