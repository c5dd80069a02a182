"""The array of multiply-accumulate cells: rows of A times lanes of B."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from rtl.common.clockgate import gated_domain
from rtl.common.place import Place
from rtl.mx.cell import Mx4Cell, Mx8Cell, Wide16Cell
from rtl.mx.decode import Mx4Decoder, Mx8Decoder, Wide16Decoder
from rtl.mx.formats import Format
from rtl.pe.a_buffer import BEAT_BITS
from rtl.pe.beat_sequencer import Path, beat_layout
from rtl.pe.interfaces import LINE_BITS

HALF = 8        # rows of A that share a row of B in a pair
STAGES = 4      # raw operand, decoded operand, dot product, accumulator
CELLS = {Path.MX4: Mx4Cell, Path.MX8: Mx8Cell, Path.WIDE: Wide16Cell}


def decoder_of(path, side):
    """Operand decoder of a kind of cell; only that of MX4 differs between the sides."""
    if path == Path.MX4:
        return Mx4Decoder(side=side)
    return {Path.MX8: Mx8Decoder, Path.WIDE: Wide16Decoder}[path]()


class OperandEdge(wiring.Component):
    """Registers a block as it comes, decodes it, and registers the decoded block.

    Latency is 2 cycles, throughput 1 block a cycle. With the first register in the clock domain of
    the path, its decoder sees nothing of the blocks for other paths. Source: this project's choice.

    Parameters
    ----------
    path : Path
        Kind of cell.
    side : str
        "a" or "b". :exc:`ValueError` if another.

    Members
    -------
    codes : In(128) or In(256)
        Packed elements.
    format : In(Format)
        Their format.
    scale : In(8)
        Their scale.
    o : Out
        Decoded block, as the decoder gives it.
    o_scale : Out(8)
        Its scale; not with a decoder that takes the scale itself.
    """

    def __init__(self, *, path, side):
        if side not in ("a", "b"):
            raise ValueError(f"Side must be 'a' or 'b', not {side!r}")
        self.path = path.name
        self._decoder = decoder_of(path, side)
        self._decoder._MustUse__silence = True  # the first of all equal edges stands for them
        members = self._decoder.signature.members
        self.bits = members["codes"].shape
        self._scaled = "scale" in members
        super().__init__({"codes": In(self.bits), "format": In(Format), "scale": In(8),
                          "o": members["o"]} | ({} if self._scaled else {"o_scale": Out(8)}))

    def elaborate(self, platform):
        m = Module()
        m.submodules.decoder = decoder = self._decoder
        codes, scale = Signal(self.bits, reset_less=True), Signal(8, reset_less=True)
        m.d.sync += [codes.eq(self.codes), scale.eq(self.scale)]
        m.d.comb += decoder.codes.eq(codes)
        if self._scaled:
            format = Signal(Format, init=Format.E4M3, reset_less=True)
            m.d.sync += format.eq(self.format)
            m.d.comb += [decoder.format.eq(format), decoder.scale.eq(scale)]
        else:
            m.d.sync += self.o_scale.eq(scale)
        decoded = self.signature.members["o"].signature
        for (_, _, register), (_, _, value) in zip(decoded.flatten(self.o),
                                                   decoded.flatten(decoder.o), strict=True):
            m.d.sync += register.eq(value)
        return m


class PathArray(wiring.Component):
    """Operand edges and cells of one path: a cell for every row of A and lane of B.

    Latency 4 cycles from a block to the accumulators that include it, throughput 1 block of every
    row and lane a cycle; ``valid``, ``first`` and ``last`` belong to the blocks of 2 cycles before.
    Source: this project's choice.

    Parameters
    ----------
    path : Path
        Kind of cell.
    rows, lanes : int
        Rows of A and lanes of B.
    halves : bool
        There is one lane, and each 8 rows of A have an operand B of their own.

    Members
    -------
    a_codes : In(128 or 256).array(rows)
        Packed elements of A.
    b_codes : In(128 or 256).array(lanes), or with ``halves`` .array(2)
        Packed elements of B.
    a_format, b_format : In(Format)
        Their formats.
    a_scales, b_scales : In(8).array(rows), In(8).array(lanes), or with ``halves`` .array(2)
        Their scales.
    valid, first, last : In(1)
        Of the decoded blocks, as every cell has them.
    acc : Out(32).array(lanes, rows)
        Accumulators, FP32.
    """

    def __init__(self, *, path, rows, lanes, halves=False):
        if halves and (lanes != 1 or rows != 2 * HALF):
            raise ValueError(f"Halves must be of 16 rows and 1 lane, not {rows!r} and {lanes!r}")
        self.path = path.name
        self.rows = rows
        self.lanes = lanes
        self.halves = halves
        bits = 128 if path == Path.MX4 else BEAT_BITS
        edges = 2 if halves else lanes
        super().__init__({
            "a_codes": In(bits).array(rows), "b_codes": In(bits).array(edges),
            "a_format": In(Format), "b_format": In(Format), "a_scales": In(8).array(rows),
            "b_scales": In(8).array(edges), "valid": In(1), "first": In(1), "last": In(1),
            "acc": Out(32).array(lanes, rows)})

    def elaborate(self, platform):
        m = Module()
        path = Path[self.path]
        edges = {"a": [], "b": []}
        for side, count in (("a", self.rows), ("b", len(self.b_codes))):
            for i in range(count):
                m.submodules[f"{side}{i}"] = edge = Place(OperandEdge(path=path, side=side))
                m.d.comb += [edge.codes.eq(getattr(self, f"{side}_codes")[i]),
                             edge.format.eq(getattr(self, f"{side}_format")),
                             edge.scale.eq(getattr(self, f"{side}_scales")[i])]
                edges[side].append(edge)
        for i in range(self.lanes):
            for r, a_edge in enumerate(edges["a"]):
                b_edge = edges["b"][r // HALF if self.halves else i]
                m.submodules[f"cell{i}_{r}"] = cell = Place(CELLS[path]())
                connect(m, a_edge.o, cell.a)
                connect(m, b_edge.o, cell.b)
                m.d.comb += [cell.valid.eq(self.valid), cell.first.eq(self.first),
                             cell.last.eq(self.last), self.acc[i][r].eq(cell.acc)]
                if path == Path.MX4:
                    m.d.comb += [cell.scale_a.eq(a_edge.o_scale), cell.scale_b.eq(b_edge.o_scale)]
        return m


class DotArray(wiring.Component):
    """Multiplies a block of every row of A by a block of every lane of B, and accumulates.

    A beat a cycle. The sums are there 4 cycles after the beat that ended them. The clock of a path
    runs only while one of its beats is under way. Source: this project's choice.

    Parameters
    ----------
    rows : int
        Rows of A, 1 to 16.
    lanes : int
        Lanes of B.
    mx4 : bool
        There are cells for MX4; without them beats must be of the other paths.
    attention : bool
        Beats may be of scores. With 16 rows a beat may have a pair of rows of B: rows 8 to 15 of A
        then take lane 1.

    Members
    -------
    beat : In(beat_layout(lanes=lanes, attention=attention))
        What the operands are.
    a_format, b_format : In(Format)
        Formats.
    a_elements : In(256).array(rows)
        Blocks of A, from the lowest bit.
    a_scales : In(8).array(rows)
        Their scales.
    b_elements : In(256)
        Block of B for lane 0.
    b_more_elements : In(128).array(lanes - 1)
        Blocks of B for the other lanes.
    b_pair_elements : In(256)
        With ``attention`` and 16 rows: block of B for lane 1.
    b_scales : In(8).array(lanes)
        Their scales.
    put : Out(1)
        Sums are finished.
    group : Out(range(lanes + 1))
        In how many lanes.
    scores : Out(1)
        With ``attention``: they are scores.
    lines : Out(512).array(lanes)
        One line a lane: an FP32 sum for each row, zero for rows that do not count.
    """

    def __init__(self, *, rows, lanes, mx4=True, attention=False):
        if not isinstance(rows, int) or not 1 <= rows <= 16:
            raise ValueError(f"Rows must be in 1 to 16, not {rows!r}")
        self.rows = rows
        self.paths = tuple(path.name for path in Path if mx4 or path != Path.MX4)
        self.lanes = lanes
        self.attention = attention
        self.pairs = attention and rows == 2 * HALF
        super().__init__({
            "beat": In(beat_layout(lanes=lanes, attention=attention)),
            "a_format": In(Format), "b_format": In(Format),
            "a_elements": In(BEAT_BITS).array(rows), "a_scales": In(8).array(rows),
            "b_elements": In(BEAT_BITS), "b_more_elements": In(128).array(lanes - 1),
            "b_scales": In(8).array(lanes), "put": Out(1), "group": Out(range(lanes + 1)),
            "lines": Out(LINE_BITS).array(lanes)} | ({"scores": Out(1)} if attention else {})
            | ({"b_pair_elements": In(BEAT_BITS)} if self.pairs else {}))

    def elaborate(self, platform):
        m = Module()
        stages = [self.beat]
        for i in range(STAGES):
            stage = Signal.like(self.beat, name=f"stage{i}")
            m.d.sync += stage.eq(stages[-1])
            stages.append(stage)
        final = stages[-1]
        if self.attention:
            m.d.comb += self.scores.eq(final.scores)

        upper = self._upper(m) if self.pairs else None
        sums = {}
        for path in map(Path.__getitem__, self.paths):
            name = path.name.lower()
            under_way = Cat(stage.valid & (stage.path == path) for stage in stages[:-1]).any()
            gated_domain(m, name=name, enable=ResetSignal("sync") | under_way)
            sums[path] = self._place(m, path, name, stages[2], upper)
        m.d.comb += [self.put.eq(final.valid & final.last), self.group.eq(final.group)]
        counted = Signal(self.rows)
        m.d.comb += counted.eq((1 << final.rows) - 1)
        for i, line in enumerate(self.lines):
            for r in range(self.rows):
                inside = [path for path in sums if i == 0 or path == Path.MX4]
                value = sums[inside[0]][i][r]
                for path in inside[1:]:
                    value = Mux(final.path == path, sums[path][i][r], value)
                m.d.comb += line[32 * r:32 * (r + 1)].eq(Mux(counted[r], value, 0))
        return m

    def _upper(self, m):
        """Block of B and its scale for the upper half of the rows."""
        codes, scale = Signal(BEAT_BITS, name="upper_codes"), Signal(8, name="upper_scale")
        m.d.comb += [codes.eq(Mux(self.beat.pair, self.b_pair_elements, self.b_elements)),
                     scale.eq(Mux(self.beat.pair, self.b_scales[1], self.b_scales[0]))]
        return codes, scale

    def _place(self, m, path, name, beat, upper):
        """The cells of one path; gives their accumulators, by lane and row."""
        lanes = self.lanes if path == Path.MX4 else 1
        halves = upper is not None and path != Path.MX4
        m.submodules[name] = array = Place(
            PathArray(path=path, rows=self.rows, lanes=lanes, halves=halves), domain=name)
        m.d.comb += [
            array.a_format.eq(self.a_format), array.b_format.eq(self.b_format),
            array.valid.eq(beat.valid & (beat.path == path)),
            array.first.eq(beat.first), array.last.eq(beat.last)]
        for r in range(self.rows):
            m.d.comb += [array.a_codes[r].eq(self.a_elements[r]),
                         array.a_scales[r].eq(self.a_scales[r])]
        for i in range(lanes):
            codes = self.b_more_elements[i - 1] if i else self.b_elements
            m.d.comb += [array.b_codes[i].eq(codes), array.b_scales[i].eq(self.b_scales[i])]
        if halves:
            m.d.comb += [array.b_codes[1].eq(upper[0]), array.b_scales[1].eq(upper[1])]
        return array.acc
