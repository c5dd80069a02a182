"""Builds the program of one PE: circular buffers by name, commands by method."""
import numpy as np

from host.isa import (
    LINE,
    Binary,
    Format,
    Function,
    Group,
    Hint,
    Norm,
    Op,
    Operand,
    Reduce,
    Rule,
    Source1,
    ceil,
    command,
    float_word,
    lines,
    scale_stride,
)

TABLE_ENTRIES = 16      # of a line of a program table


class Program:
    """Commands of one PE, in order, with its local memory divided into circular buffers.

    ``buffer`` allocates a CB; ``phase`` ends the use of all of them (a barrier or a fence) and
    starts a new division. Sizes are in lines unless a name says bytes.
    :exc:`ValueError` if the buffers of a phase do not fit into local memory.
    """

    def __init__(self, *, local_lines=8192, buffers=32):
        self.local_lines = local_lines
        self.buffers = buffers
        self.commands = []
        self._next_cb = self._next_line = 0

    def words(self, base=0):
        """Return the program as an array of [commands, 16] words, ``END`` included.

        ``base``: device address of the first, for programs that name addresses of their own.
        """
        return np.stack([*self.commands, command(Op.END)])

    def add(self, *args, **fields):
        self.commands.append(command(*args, tag=len(self.commands) & 0xffff, **fields))

    def phase(self, *, barrier):
        self.add(Op.BARRIER if barrier else Op.FENCE)
        self._next_cb = self._next_line = 0

    @property
    def free_lines(self):
        """Lines of local memory that no circular buffer of this phase has."""
        return self.local_lines - self._next_line

    def buffer(self, size):
        """Allocate a circular buffer of ``size`` lines and return its number."""
        size = max(size, 1)
        if self._next_cb == self.buffers:
            raise ValueError(f"A phase has at most {self.buffers} circular buffers")
        if self._next_line + size > self.local_lines:
            raise ValueError(f"Circular buffers need {self._next_line + size} lines, local memory "
                             f"has {self.local_lines}")
        cb = self._next_cb
        self.add(Op.CB_CONFIG, w1=cb, w2=self._next_line, w3=size)
        self._next_cb += 1
        self._next_line += size
        return cb

    def dma_in(self, dst, remote, *, rows=1, row_bytes, remote_stride=0, local_stride=0, offset=0,
               hint=Hint.NONE, group=Group.ALONE):
        """Append a DMA_IN command; with ``PREFETCH`` ``dst`` is any buffer, and nothing comes.

        Each PE of the ``group`` must read the same rows.
        """
        self._dma(Op.DMA_IN, dst, remote, rows, row_bytes, remote_stride, local_stride, offset,
                  hint=hint | group << 2)

    def dma_out(self, src, remote, *, rows=1, row_bytes, remote_stride=0, local_stride=0,
                offset=0, hint=Hint.NONE):
        """Append a DMA_OUT command; ``hint`` is ``NONE`` or ``NO_ALLOCATE``."""
        self._dma(Op.DMA_OUT, src, remote, rows, row_bytes, remote_stride, local_stride, offset,
                  hint=hint)

    def gather(self, dst, index, remote, *, rows, row_bytes, remote_stride, local_stride,
               limit=0, hint=Hint.NONE):
        """Append a GATHER command; an index from ``limit`` on is an error, unless that is 0."""
        self._dma(Op.GATHER, dst, remote, rows, row_bytes, remote_stride, local_stride, 0, index,
                  limit, hint)

    def _dma(self, op, local, remote, rows, row_bytes, remote_stride, local_stride, offset,
             index=None, limit=0, hint=Hint.NONE):
        self.add(op, w1=hint, w2=local, w4=remote, w5=remote >> 32, w6=rows, w7=row_bytes,
                 w8=remote_stride, w9=local_stride, w10=offset, w11=limit, w12=index)

    def load_a(self, elements, scales, *, form, rows, blocks, stride, scale_stride=0):
        self.add(Op.LOAD_A, w1=form, w2=elements, w4=scales, w8=rows | blocks << 16,
                 w9=stride | scale_stride << 16)

    def dot(self, elements, scales, out, *, a, b, columns, blocks, stride, out_stride,
            scale_stride=0, release_a=True, accumulate=False):
        self.add(Op.DOT, w1=a | b << 4 | release_a << 8 | accumulate << 9, w2=elements, w4=scales,
                 w6=out, w8=columns | blocks << 16, w9=stride | scale_stride << 16,
                 w10=out_stride)

    def score(self, elements, scales, *, a, b, p, keys, blocks, stride, low, high, factor,
              scale_stride=0, share=0, first, last, release_a, pair=False, state=False, cap=None,
              sinks=None):
        """Append a SCORE command: a block of keys against the queries in the A buffer.

        With ``cap``, x of a score s is cap - 2 cap / (1 + 2^(factor s)), not factor s.
        """
        capped = {} if cap is None else {"w13": float_word(cap), "w14": float_word(-2 * cap)}
        self.add(Op.SCORE, w1=(a | b << 4 | release_a << 8 | pair << 10 | first << 11 | last << 12
                               | state << 13 | p << 16 | share << 20 | (cap is not None) << 24),
                 w2=elements, w4=scales, w6=sinks, w8=keys | blocks << 16,
                 w9=stride | scale_stride << 16, w10=low, w11=high, w12=float_word(factor),
                 **capped)

    def weigh(self, elements, scales, out, *, p, b, rows, blocks, stride, out_stride,
              scale_stride=0, first, last, pair=False):
        """Append a WEIGH command: the oldest P against V^T, into O^T."""
        self.add(Op.WEIGH, w1=p | b << 4 | (not first) << 9 | pair << 10 | last << 12,
                 w2=elements, w4=scales, w6=out, w8=rows | blocks << 16,
                 w9=stride | scale_stride << 16, w10=out_stride)

    def reduce(self, dst, *, lines, receive=False, source=None, send=False, stride=1,
               source_stride=1):
        """Append a REDUCE command: lines of the ring, of ``source`` or their sums, to ``dst``.

        With ``send`` they go to the next PE of the ring, and ``dst`` is any buffer.
        """
        self.add(Op.REDUCE, w1=receive | (source is not None) << 1 | send << 2, w6=dst, w8=lines,
                 w9=source_stride, w10=stride, w11=source)

    def simd(self, src, dst, *, rows, columns, src1=None, mode=Source1.FULL, op=Binary.NONE,
             affine=None, function=Function.NONE, reduce=Reduce.NONE, src_format=Format.FP32,
             src1_format=Format.FP32, form=Format.FP32, rule=Rule.FLOOR, scales=None,
             stride=None, stride1=None, dst_stride=None, dst_scale_stride=None, seed=None,
             norm=Norm.NONE, epsilon=0.0):
        """Append a SIMD command; strides default to dense rows that start on lines.

        With ``norm``, ``src1`` is a row of gamma and, for LayerNorm, a row of beta after it.
        """
        def dense(f):
            return lines(f.row_bytes(columns))
        stride = dense(src_format) if stride is None else stride
        stride1 = dense(src1_format) if stride1 is None else stride1
        dst_stride = dense(form) if dst_stride is None else dst_stride
        dst_scale_stride = scale_stride(columns) if dst_scale_stride is None else dst_scale_stride
        factor, addend = affine or ((1 / columns, epsilon) if norm else (1.0, 0.0))
        mode = Source1.ROW if norm else mode
        self.add(Op.SIMD, w1=(src_format | src1_format << 4 | form << 8 | op << 12
                              | function << 16 | reduce << 20 | mode << 22 | rule << 24
                              | (seed is not None) << 27 | (affine is not None) << 28 | norm << 29),
                 w2=src, w4=src1, w6=dst, w8=rows | columns << 16, w9=stride | stride1 << 16,
                 w10=dst_stride | dst_scale_stride << 16,
                 w11=float_word(factor), w12=float_word(addend), w13=scales, w15=seed)

    def transpose(self, src, dst, *, rows, columns, element_bytes, src_stride, dst_stride):
        self.add(Op.TRANSPOSE, w1=element_bytes, w2=src, w4=dst, w8=rows | columns << 16,
                 w9=src_stride | dst_stride << 16)


def table_lines(pes):
    """Lines of the program tables of a die with that many PEs and message engines."""
    return -(-pes // TABLE_ENTRIES)


def table(programs, *, base, pes=TABLE_ENTRIES):
    """Programs of several PEs as one block of memory that starts with the program table.

    Parameters
    ----------
    programs : dict
        PE number to :class:`Program`, or to what has ``words`` as it has: the programs of message
        engines have the numbers after those of the PEs.
    base : int
        Device address where the block will lie, a multiple of 64.
    pes : int
        PEs of the die, and its message engines: its tables have an entry for each, and end on a
        line.

    Returns the block as bytes; it starts with the program table of a launch.
    """
    if base % LINE:
        raise ValueError(f"Program table must start on a line, not at {base:#x}")
    at = table_lines(pes)
    entries, parts = np.zeros((at, TABLE_ENTRIES), np.uint32), []
    for pe, program in programs.items():
        words = program.words(base + LINE * at)
        entries.flat[pe] = at
        at += len(words)
        parts.append(words)
    return np.concatenate([entries, *parts]).astype("<u4").tobytes()


def use(cb, *, offset=0, wait=0, release=0):
    """Short for an :class:`Operand`."""
    return Operand(cb, offset, wait, release)


__all__ = ["Program", "ceil", "table", "use"]
