"""Near-memory compute of a message engine: sums of lines as they are read from memory."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.clockgate import gated_domain
from rtl.common.fp32 import INFINITY, NAN, Adder, from_bf16, from_fp16
from rtl.common.place import Place
from rtl.common.queue import Queue
from rtl.mx.decode import fp16_of_e4m3
from rtl.mx.formats import Format
from rtl.mx.quantise import SCALE_NAN, BlockScale, Rule, largest_magnitude
from rtl.pe.interfaces import LINE_BITS
from rtl.pe.simd_lane import NarrowLane
from rtl.pe.simd_quantise import QuantiserLane

LANES = 32      # elements added in a cycle: an MX block, a line of 16-bit elements
BLOCKS = LINE_BITS // 8 // LANES    # MX blocks of a line
LATENCY = 7     # cycles from a line of pairs to its sums, one more for an MX format


def operands_layout():
    """Two lines of one format, and for MX formats the scale bytes of their blocks and the rule."""
    return data.StructLayout({"format": Format, "rule": Rule, "a": LINE_BITS, "b": LINE_BITS,
                              "scales_a": 8 * BLOCKS, "scales_b": 8 * BLOCKS})


def sums_layout():
    """A line of sums; scale bytes of its blocks, for MX formats."""
    return data.StructLayout({"line": LINE_BITS, "scales": 8 * BLOCKS})


def is_block_format(format):
    return (format == Format.E4M3) | (format == Format.E5M2)


class OperandLane(wiring.Component):
    """An element as FP32, one cycle later.

    No reset; the domain ``sync`` may be gated. Exact, but that an MX element past the largest FP32
    number becomes infinite.

    Members
    -------
    code : In(32)
        FP32, or in the low bits BF16, FP16, E4M3 or E5M2.
    format : In(Format)
        Which of them.
    scale : In(8)
        E8M0 scale, for E4M3 and E5M2.
    o : Out(32)
        FP32 pattern; NaN is canonical but for FP32, which is passed.
    """

    code: In(32)
    format: In(Format)
    scale: In(8)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()
        code, scale, format = (Signal.like(port, name=name, reset_less=True) for name, port in (
            ("held_code", self.code), ("held_scale", self.scale), ("held_format", self.format)))
        m.d.sync += [code.eq(self.code), scale.eq(self.scale), format.eq(self.format)]
        half = Signal(16)
        with m.Switch(format):
            with m.Case(Format.E4M3):
                m.d.comb += half.eq(fp16_of_e4m3(code[:8]))
            with m.Case(Format.E5M2):
                m.d.comb += half.eq(Cat(C(0, 8), code[:8]))
            with m.Default():
                m.d.comb += half.eq(code[:16])
        wide = from_fp16(m, half)
        with m.Switch(format):
            with m.Case(Format.FP32):
                m.d.comb += self.o.eq(code)
            with m.Case(Format.BF16):
                m.d.comb += self.o.eq(from_bf16(code[:16]))
            with m.Case(Format.FP16):
                m.d.comb += self.o.eq(wide)
            with m.Default():
                m.d.comb += self.o.eq(self._scaled(m, wide, scale))
        return m

    def _scaled(self, m, wide, scale):
        """FP32 of an MX element, of which ``wide`` has no more than 4 significant bits."""
        exponent, result = Signal(signed(10)), Signal(32)
        m.d.comb += exponent.eq(wide[23:31] + scale - 127)
        # Nothing is rounded: the smallest, 2^-16 x 2^-127, is a multiple of the last bit, 2^-149.
        down = (1 - exponent)[:5]
        sign = wide[31]
        with m.If((wide[:31] > INFINITY) | (scale == SCALE_NAN)):
            m.d.comb += result.eq(NAN)
        with m.Elif(wide[:31] == 0):
            m.d.comb += result.eq(wide)
        with m.Elif((wide[23:31] == 0xFF) | (exponent > 254)):
            m.d.comb += result.eq(Cat(C(INFINITY, 31), sign))
        with m.Elif(exponent > 0):
            m.d.comb += result.eq(Cat(wide[:23], exponent[:8], sign))
        with m.Else():
            m.d.comb += result.eq(Cat(Cat(wide[:23], C(1, 8)) >> down, sign))
        return result


class NearMemory(wiring.Component):
    """Adds pairs of lines element by element: S = A + B in FP32, in the format of both.

    Elements of FP32, BF16, FP16, E4M3 and E5M2, the last two as MX blocks of 32 with an E8M0 scale
    each: dequantised, added, quantised again with the rule. Latency is ``LATENCY`` cycles and 1
    more for MX formats, throughput a line a cycle, for MX formats a line in 2; lines of all formats
    may follow each other. Every output is a function of registers. The golden model is
    ``cosim/golden/near_memory.py``. Source: a near-memory compute unit of S = A + B that adds in
    FP32, as published for the MTIA 300 (ISCA 2026); the rest is this project's choice.

    Members
    -------
    i : In(stream.Signature(operands_layout()))
        Pairs of lines, of one of these formats: who commands the sum refuses others.
    o : Out(stream.Signature(sums_layout()))
        Their sums, in order. The scales mean nothing unless the format is MX.
    active : Out(1)
        Lines are under way.
    """

    i: In(stream.Signature(operands_layout()))
    o: Out(stream.Signature(sums_layout()))
    active: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(operands_layout())
        connect(m, flipped(self.i), queue.i)
        stage = data.StructLayout({"valid": 1, "format": Format, "rule": Rule, "upper": 1})
        # A stage is named for what its registers hold of a beat of 32 elements.
        names = ("operands", "terms", "sums", "peaks", "codes")
        stages = [Signal(stage, name=name) for name in names]
        advance, beat = Signal(), Signal(stage)
        m.d.comb += [advance.eq(~self.o.valid | self.o.ready), self.active.eq(
            queue.o.valid | Cat(s.valid for s in stages).any() | self.o.valid)]
        self._take(m, queue.o, beat, advance)
        for name, before, after in zip(names, (beat, *stages), stages, strict=False):
            gated_domain(m, name=name, enable=advance & before.valid)
            with m.If(advance):
                m.d.sync += after.eq(before)

        line, sums = queue.o.payload, []
        terms = [self._terms(m, side, line[side], line[f"scales_{side}"], beat) for side in "ab"]
        for n, pair in enumerate(zip(*terms, strict=True)):
            m.submodules[f"add{n}"] = adder = Place(Adder())
            total = Signal(32, name=f"sum{n}", reset_less=True)
            m.d.comb += [adder.a.eq(pair[0]), adder.b.eq(pair[1])]
            m.d.sums += total.eq(adder.o)
            sums.append(total)
        self._collect(m, stages[-1], advance, *self._codes(m, sums, stages[-2], stages[-1]))
        return m

    def _take(self, m, i, beat, advance):
        """Beats of the line that stands; an MX line leaves with its second."""
        line, upper = i.payload, Signal()
        whole = ~is_block_format(line.format) | upper
        m.d.comb += [beat.valid.eq(i.valid), beat.format.eq(line.format), beat.rule.eq(line.rule),
                     beat.upper.eq(upper), i.ready.eq(advance & whole)]
        with m.If(i.valid & advance):
            m.d.sync += upper.eq(~whole)

    def _terms(self, m, side, line, scales, beat):
        """The elements of one operand as FP32; lanes that a line of FP32 does not fill have 0."""
        scale, terms = scales.word_select(beat.upper, 8), []
        padded = Cat(line, C(0, 32 * LANES - LINE_BITS))
        for n in range(LANES):
            m.submodules[f"{side}{n}"] = lane = Place(OperandLane(), domain="operands")
            m.d.comb += [lane.format.eq(beat.format), lane.scale.eq(scale)]
            with m.If(is_block_format(beat.format)):
                m.d.comb += lane.code.eq(Mux(beat.upper, line.word_select(LANES + n, 8),
                                             line.word_select(n, 8)))
            with m.Elif(beat.format != Format.FP32):
                m.d.comb += lane.code.eq(line.word_select(n, 16))
            with m.Else():
                m.d.comb += lane.code.eq(padded.word_select(n, 32))
            term = Signal(32, name=f"term_{side}{n}", reset_less=True)
            m.d.terms += term.eq(lane.o)
            terms.append(term)
        return terms

    def _codes(self, m, sums, peaks, codes):
        """Codes of the sums, 32 bits each, and the scale byte of their block."""
        peak, held = Signal(31, reset_less=True), Signal(8, reset_less=True)
        m.d.peaks += peak.eq(largest_magnitude(m, sums))
        m.submodules.scale = scale = Place(BlockScale())
        m.d.comb += [scale.magnitude.eq(peak), scale.format.eq(peaks.format),
                     scale.rule.eq(peaks.rule)]
        m.d.codes += held.eq(scale.o)
        results = []
        for n, total in enumerate(sums):
            value = Signal(32, name=f"value{n}", reset_less=True)
            m.d.peaks += value.eq(total)
            m.submodules[f"narrow{n}"] = narrow = Place(NarrowLane(), domain="codes")
            m.submodules[f"quantise{n}"] = quantise = Place(QuantiserLane(), domain="codes")
            m.d.comb += [
                narrow.x.eq(value), narrow.keep.eq(1), narrow.format.eq(codes.format),
                quantise.x.eq(value), quantise.scale.eq(scale.o),
                quantise.format.eq(codes.format)]
            results.append(Mux(is_block_format(codes.format), quantise.o, narrow.o))
        return results, held

    def _collect(self, m, codes, advance, results, scale):
        """Lines of the codes: the first beat of an MX line fills its lower half."""
        o = self.o.payload
        with m.If(advance):
            m.d.sync += self.o.valid.eq(codes.valid & (~is_block_format(codes.format)
                                                       | codes.upper))
        with m.If(advance & codes.valid):
            with m.If(is_block_format(codes.format)):
                half = Cat(code[:8] for code in results)
                m.d.sync += [o.line.word_select(codes.upper, 8 * LANES).eq(half),
                             o.scales.word_select(codes.upper, 8).eq(scale)]
            with m.Elif(codes.format == Format.FP32):
                m.d.sync += o.line.eq(Cat(code for code in results[:LINE_BITS // 32]))
            with m.Else():
                m.d.sync += o.line.eq(Cat(code[:16] for code in results))
