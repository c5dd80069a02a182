"""Streams of an SRAM slice: from the mesh, towards HBM, and between its parts."""
from amaranth.lib import data, enum

from rtl.pe.interfaces import LINE_BITS, LINE_BYTES, AccessError, Hint

LINE_NUMBER_BITS = 34           # of a line of 64 bytes within 1 TiB
WORD_BITS = 64                  # protected by one code word
WORDS = LINE_BITS // WORD_BITS
WORD_BYTES = WORD_BITS // 8
CHECK_BITS = 8                  # of a word
COUNTERS = 16


class Counter(enum.IntEnum):
    """Numbers of the counters of a slice."""

    ACCESSES = 0        # requests taken
    SCRATCH_READS = 1
    SCRATCH_WRITES = 2
    HITS = 3            # cached requests whose line was there
    MISSES = 4          # all other cached requests
    WRITE_BACKS = 5     # changed lines sent to memory
    CONFLICTS = 6       # cycles in which an access waited for its bank or for the write path
    PREFETCHES = 7      # lines fetched by PREFETCH
    USELESS = 8         # of them replaced before they were used
    CORRECTED = 9       # lines and sets read in which wrong bits were corrected
    UNCORRECTABLE = 10  # lines and sets read in which they could not be
    SCRUBBED = 11       # lines looked at by the scrubber
    MERGES = 12         # writes of parts of words: each takes its bank one cycle more
    FULL = 13           # cycles in which a miss waited for a free entry
    FAILED = 14         # answers of memory with an error
    DROPPED = 15        # changed lines given up unwritten, as NO_WRITE_BACK allows


def slice_request_layout(*, name_bits):
    """A request to a slice: one line, or for a write the bytes of it that ``mask`` selects.

    ``line``: number of a line of scratch memory, or if ``cached`` of a line of HBM; ``name`` comes
    back with the answer.
    """
    return data.StructLayout({"line": LINE_NUMBER_BITS, "cached": 1, "hint": Hint,
                              "name": name_bits, "write": 1, "data": LINE_BITS,
                              "mask": LINE_BYTES})


def slice_response_layout(*, name_bits):
    """The answer to a request."""
    return data.StructLayout({"name": name_bits, "write": 1, "error": AccessError,
                              "data": LINE_BITS})


def memory_request_layout(*, name_bits):
    """A request of a slice to HBM; ``poison``: what is written is known to be wrong."""
    return data.StructLayout({"line": LINE_NUMBER_BITS, "name": name_bits, "write": 1,
                              "poison": 1, "data": LINE_BITS, "mask": LINE_BYTES})


def memory_response_layout(*, name_bits):
    """The answer to it."""
    return slice_response_layout(name_bits=name_bits)


def inject_layout():
    """Bits to invert in the next word of data, or the next tag, that is written.

    ``mask``: the word, then its check bits; of a tag the entry, then its check bits.
    """
    return data.StructLayout({"valid": 1, "tag": 1, "mask": WORD_BITS + CHECK_BITS})


class Work(enum.Enum, shape=2):
    """What passes the tags."""

    ACCESS = 0
    SCRUB = 1       # correct the entry and the line ``place``
    WALK = 2        # write back, then give up, ways of the set of ``place``


def walk_layout(*, places, ways):
    """A job of the slice's own: ``place`` of a SCRUB, the set in it of a WALK.

    ``clean``: ways to write back, ``leave``: ways to give up after that.
    """
    return data.StructLayout({"work": Work, "place": range(places), "clean": ways, "leave": ways})


def lookup_layout(*, places, ways, name_bits):
    """A job for :class:`rtl.memory.slice.lookup.Lookup`: a request, or one of the slice's own."""
    own = walk_layout(places=places, ways=ways)
    return data.StructLayout({name: field.shape for name, field in own} | {
        "line": LINE_NUMBER_BITS, "hint": Hint, "name": name_bits, "write": 1,
        "data": LINE_BITS, "mask": LINE_BYTES})


def task_layout(*, places, name_bits):
    """What follows an access to the data array, one cycle later.

    ``respond``: answer it. ``read``: line ``place`` has been read. ``store``: write the line back
    with the bytes of ``data`` that ``mask`` selects, ``scrub``: if a bit was corrected. ``evict``:
    send what was read to memory as line ``victim``.
    """
    return data.StructLayout({
        "respond": 1, "name": name_bits, "write": 1, "error": AccessError, "read": 1, "store": 1,
        "scrub": 1, "evict": 1, "place": range(places), "victim": LINE_NUMBER_BITS,
        "data": LINE_BITS, "mask": LINE_BYTES})
