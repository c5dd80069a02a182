"""Mutants of the attention unit: the softmax unit, and what the engines do for it."""
from dataclasses import dataclass

SOFTMAX = "testbenches/attention/test_softmax.py"
ROUND = "testbenches/attention/test_softmax_round.py"
DOT = "testbenches/attention/test_dot_attention.py"
REDUCTION = "testbenches/attention/test_reduction_attention.py"
RING = "testbenches/pe/test_reduction.py"


@dataclass(frozen=True)
class Mutant:
    """``old``, which stands once in the file ``path``, becomes ``new``; ``test`` must fail.

    ``what`` says what is wrong then.
    """

    what: str
    path: str
    old: str
    new: str
    test: str


def of(path, test, *changes):
    return [Mutant(what, path, old, new, test) for what, old, new in changes]


MUTANTS = (
    *of("rtl/attention/softmax_lane.py", SOFTMAX,
        ("0 is rounded up to 1", "Mux(x[31] | ~x[:31].any(), 0, ONE)", "Mux(x[31], 0, ONE)"),
        ("negative maxima are rounded away from zero", "up = ~x[31] & (x[:23]", "up = (x[:23]"),
        ("numbers from 2^22 on count as whole", "BIAS + 23 ", "BIAS + 22 "),
        ("a tile goes on from the maximum of the one before",
         "Mux(self.fresh & ~self.merge, whole, maximum(peak, term))", "maximum(peak, term)"),
        ("hidden keys are seen", "x.eq(Mux(self.seen, product.o, MINUS_INFINITY))",
         "x.eq(product.o)"),
        ("a score of -infinity weighs NaN where nothing else is seen",
         "p.eq(Mux(hidden[-1], 0, function.o))", "p.eq(function.o)"),
        ("a first block is rescaled", "moved.eq((maximum != self.peak) & ~self.restart)",
         "moved.eq(maximum != self.peak)"),
        ("the sum of the tile before counts", "rescaled.eq(Mux(self.restart, 0, product.o))",
         "rescaled.eq(product.o)"),
        ("the sum is not rescaled", "product.b.eq(factor)", "product.b.eq(ONE)"),
        ("the sum of a block is not started anew", "with m.If(self.clear):",
         "with m.If(self.clear & self.restart):"),
        ("unrounded weights are summed", "Mux(self.sink, rounder.scaled, rounder.value)",
         "rounder.scaled"),
        ("the weight of a sink is rounded", "value.eq(Mux(self.sink, rounder.scaled,",
         "value.eq(Mux(self.sink, rounder.value,"),
        ("1 / 0 where a row saw nothing", "Mux(total == 0, 0, function.o)))", "function.o))"),
        ("the maximum of a row that saw nothing leaves as -infinity",
         "Mux(maximum == MINUS_INFINITY, LOWEST, maximum)", "maximum"),
        ("the sum of a row that saw nothing leaves as 0", "Mux(total == 0, SMALLEST, total)",
         "total")),
    *of("rtl/attention/softmax_round.py", ROUND,
        ("ties are rounded up", "(shifted[1] & (shifted[0] | shifted[2]))", "shifted[1]"),
        ("bits far below are lost", "Cat(self.p[:below - 1].any(),", "Cat(C(0, 1),"),
        ("FP16 is held times 2^14", "(10, 98, 112, 0x7E00)", "(10, 99, 113, 0x7E00)"),
        ("E4M3 becomes subnormal too early", "(3, 113, 120, 0x7F)", "(3, 114, 120, 0x7F)"),
        ("NaN becomes a number", "code.eq(Mux(is_nan(self.p), empty, magnitude))",
         "code.eq(magnitude)"),
        ("subnormal values are off by a power", "field + offset + ~normal", "field + offset")),
    *of("rtl/attention/softmax_pack.py", SOFTMAX,
        ("the padding is one word short in E4M3", "block.groups << 2, block.groups << 3",
         "(block.groups << 2) - 1, block.groups << 3"),
        ("a word keeps codes of the one before", "row.eq(Mux(position == 0, 0, row) |",
         "row.eq(row |"),
        ("the lanes of a pair are swapped", "Cat(even[:8], odd[:8], even[:8], odd[:8])",
         "Cat(odd[:8], even[:8], odd[:8], even[:8])"),
        ("a partial word is not handed over", "((position + size == WORD_BYTES) | self.final)",
         "(position + size == WORD_BYTES)")),
    *of("rtl/attention/softmax_maximum.py", SOFTMAX,
        ("limits far away wrap round", "Mux(value > KEYS, C(KEYS, signed(9)),",
         "Mux(value > 511, C(KEYS, signed(9)),"),
        ("the last key of the mask is hidden", "(behind <= high)", "(behind < high)"),
        ("an odd last key of a pair brings a key that is not there",
         "pair & odd & ends if r >= HALF else 0", "0"),
        ("positions are shared by too few rows", ">> share", ">> (share >> 1)"),
        ("the lanes of a pair keep maxima of their own", "merge.eq(compare & final & ending.pair)",
         "merge.eq(0)"),
        ("a tile starts anew with its second line", "(line == 0) & block.first",
         "(line <= 1) & block.first"),
        ("the first block after a reset may go on", "command.first | unused", "command.first")),
    *of("rtl/attention/softmax_maximum.py", SOFTMAX,
        ("a sink is hidden by the mask", "Mux(self.sinking, ~pair | (r < HALF), within)", "within"),
        ("a sink is scaled", "Mux(taken_sink, ONE, scale)", "scale")),
    *of("rtl/attention/softmax_cap.py", SOFTMAX,
        ("the soft cap divides by an exponential alone", "one_more.b.eq(ONE)", "one_more.b.eq(0)"),
        ("the soft cap starts from 0", "total.b.eq(self.settings.offset)", "total.b.eq(0)"),
        ("a line is let go before its last part", "(part == PARTS - 1)", "(part == PARTS - 2)"),
        ("the parts of a line stay in one place", "self.o.part.eq(self.o.part + self.o.valid)",
         "self.o.part.eq(0)")),
    *of("rtl/attention/softmax_exponential.py", SOFTMAX,
        ("the sinks become a column of P", "line[-1] & ~sunk", "line[-1]"),
        ("the earlier sum is lost", "lane.finish.eq(finish)", "lane.finish.eq(0)"),
        ("the lanes of a pair are not joined", "lane.merge.eq(merge)", "lane.merge.eq(0)"),
        ("a block starts while its factors have no place",
         "& self.p.free & self.factors.ready", "& self.p.free"),
        ("a block starts while no P buffer is free", "~self.busy & self.p.free", "~self.busy"),
        ("the state is left out", "exporting | (advance", "(advance"),
        ("a block does not say that its state follows", "block.state & ~exporting", "0"),
        ("P is said to be done before the factors left", "& (pushed | final_push)", "")),
    *of("rtl/attention/softmax_command.py", SOFTMAX,
        ("129 keys are taken", "(command.columns > KEYS)", "(command.columns > KEYS + 1)"),
        ("a cap without a soft cap is not refused", "command.cap_slope.any() & ~command.soft_cap",
         "C(0)"),
        ("sinks of a later block are not refused", "command.sink.any() & ~command.first", "C(0)"),
        ("no key is taken", "(command.columns == 0) | ", ""),
        ("the state of a last block is not refused", "| (command.last & command.state)", "")),
    *of("rtl/attention/softmax_store.py", SOFTMAX,
        ("both blocks share a store", "self.write & (self.write_bank == b)",
         "self.write & (0 == b)")),
    *of("rtl/pe/beat_sequencer.py", DOT,
        ("P of another format is weighed", "content.format != job.a, Mux(", "C(0), Mux("),
        ("a pair takes one row of B", "Mux(job.pair, 2, self.lanes)",
         "Mux(job.pair, 1, self.lanes)"),
        ("WEIGH lets an A buffer go", "release_a = job.release & ~job.weigh",
         "release_a = job.release"),
        ("rows past those of A are not weighed", "Mux(job.weigh, ALL_ROWS, rows)",
         "Mux(job.weigh, rows, rows)")),
    *of("rtl/pe/a_buffer.py", DOT,
        ("P has the scales of A", "scaled.eq(~self.weigh)", "scaled.eq(1)"),
        ("a word of P overwrites a line of A",
         "self.p.word.ready.eq(~self.fill.element_valid & ", "self.p.word.ready.eq("),
        ("both P buffers are one", "Cat(word.index[3:], filling)",
         "Cat(word.index[3:], C(0, 1))")),
    *of("rtl/pe/drain.py", DOT,
        ("scores leave twice", "self.o.valid.eq(valid & ~scores)", "self.o.valid.eq(valid)")),
    *of("rtl/pe/line_path.py", REDUCTION,
        ("the earlier line is never rescaled", "return Mux(scaled, scaler.o, self.old)",
         "return self.old"),
        ("a plain line overtakes one that is divided",
         "~(pairing.valid | adding.valid | (finishing.valid & ~kind.last))",
         "~(pairing.valid | adding.valid)")),
    *of("rtl/pe/reduction.py", REDUCTION,
        ("factors go while a line still needs them", "owed & ~path.needs_inverse", "owed"),
        ("sums and maxima change places", "Mux(walk.ends, factors.factor, factors.inverse)",
         "Mux(walk.ends, factors.inverse, factors.factor)"),
        ("a state is added to what stands there", "adds = task.accumulate & ~walk.exports",
         "adds = task.accumulate")),
    *of("rtl/pe/reduction_walk.py", RING,
        ("the ring gives a line that no command wants", "self.wants.eq(wanted != 0)",
         "self.wants.eq(1)")),
    *of("rtl/pe/line_slots.py", RING,
        ("a line that is sent is written too", "output.valid.eq(ready & ~away)",
         "output.valid.eq(ready)"),
        ("a line is read before the write to its place", "pending[i].eq(~self.send)",
         "pending[i].eq(0)")),
)
