"""Mutants of the message engine: near-memory sums."""
from testbenches.mutants.attention import of

NEAR_MEMORY = "testbenches/net/test_near_memory.py"

MUTANTS = (
    *of("rtl/net/near_memory.py", NEAR_MEMORY,
        ("a block with the scale of NaN has numbers", " | (scale == SCALE_NAN)", ""),
        ("an element past the largest FP32 number wraps", " | (exponent > 254)", ""),
        ("subnormal elements are half as large", ">> down, sign", ">> (down + 1)[:5], sign"),
        ("the upper block has the scale of the lower", "scales.word_select(beat.upper, 8)",
         "scales[:8]"),
        ("an MX line leaves with its first beat",
         "whole = ~is_block_format(line.format) | upper", "whole = C(1, 1)"),
        ("half of a block has no say in its scale", "largest_magnitude(m, sums)",
         "largest_magnitude(m, sums[:16])"),
        ("every block has the rule FLOOR", "scale.rule.eq(peaks.rule)", "scale.rule.eq(0)"),
        ("the scale is that of the line's format before", "scale.format.eq(peaks.format)",
         "scale.format.eq(codes.format)"),
        ("lines move while the one in front waits", "advance.eq(~self.o.valid | self.o.ready)",
         "advance.eq(1)"),
        ("an MX line is offered with its first beat",
         "| codes.upper))", "| C(1, 1)))"),
        ("a stage's clock is a cycle late", "enable=advance & before.valid",
         "enable=advance & after.valid"),
        ("a line that waits for the first stage is not under way",
         "queue.o.valid | Cat(s.valid", "Cat(s.valid")),
)
