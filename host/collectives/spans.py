"""Elements of a buffer by their numbers, and how a vector is divided among ranks."""
from dataclasses import dataclass

from host.isa import LINE, Format, ceil

BLOCK = 32          # elements of an MX format that share a scale byte
SCALES = " scales"  # what the buffer of a buffer's scales is called, after its own name


@dataclass(frozen=True)
class Span:
    """``count`` elements of a buffer, from number ``first`` on. MX: whole blocks."""

    buffer: str
    first: int
    count: int

    def part(self, first, count):
        """Some of these elements."""
        return Span(self.buffer, self.first + first, count)


@dataclass(frozen=True)
class Elements:
    """Where the elements of a format lie: bytes of a span, and of its scales.

    :exc:`ValueError` for a format that no message engine can add.
    """

    format: Format

    def __post_init__(self):
        if self.format not in (Format.FP32, Format.BF16, Format.FP16, Format.E4M3, Format.E5M2):
            raise ValueError(f"Format must be FP32, BF16, FP16, E4M3 or E5M2, not {self.format!r}")

    @property
    def bytes(self):
        """Bytes of an element."""
        return self.format.bits // 8

    @property
    def unit(self):
        """Elements that stay together."""
        return BLOCK if self.format.is_mx else 1

    @property
    def grain(self):
        """Elements whose bytes, and scale bytes, fill whole lines: where a sum may start."""
        return BLOCK * LINE if self.format.is_mx else LINE // self.bytes

    def check(self, count):
        """:exc:`ValueError` unless so many elements can be moved and added."""
        if count < 0 or count % self.unit:
            raise ValueError(f"Elements must be whole blocks of {self.unit} {self.format.name}, "
                             f"not {count}")

    def parts(self, span):
        """The bytes of a span: (buffer, first, count) for elements and, in MX formats, scales."""
        whole = [(span.buffer, span.first * self.bytes, span.count * self.bytes)]
        if self.format.is_mx:
            whole.append((span.buffer + SCALES, span.first // BLOCK, span.count // BLOCK))
        return [part for part in whole if part[2]]

    def on_lines(self, span):
        """Whether a sum may be written there."""
        return span.first % self.grain == 0


def chunks(count, ranks, elements):
    """First element and number of each rank's chunk of a vector.

    Borders are at whole lines; the first chunks have a line more where it does not divide, the
    last one that has any is ragged.
    """
    grains, found = ceil(count, elements.grain) // elements.grain, []
    for rank in range(ranks):
        first = (rank * (grains // ranks) + min(rank, grains % ranks)) * elements.grain
        size = (grains // ranks + (rank < grains % ranks)) * elements.grain
        found.append((min(first, count), max(min(size, count - first), 0)))
    return found


def pieces(first, count, size):
    """The pieces of a chunk: first element and number of each, of at most ``size``."""
    return [(first + at, min(size, count - at)) for at in range(0, count, size)]
