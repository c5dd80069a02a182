"""Golden model of a PE at the level of its commands: what a program does, without time.

It executes the commands of docs/programming-model.md one after another with the arithmetic of the
other golden models, and refuses what the hardware refuses. A program that runs here in program
order also runs on the hardware, where units run apart, as it needs no more buffer space there.
"""
from collections import deque

import numpy as np

from cosim.golden import dot, machine_attention, machine_ring, simd
from cosim.golden.cache import Hint
from cosim.golden.formats import SPECS, Format

LINE = 64
ROWS = 16


class Refused(Exception):
    """A command that the hardware answers with an error: ``(code, field)``."""

    def __init__(self, code, field, text):
        super().__init__(text)
        self.code, self.field = code, field


class Buffer:
    """A circular buffer: pointers in lines."""

    def __init__(self, base, size):
        self.base, self.size = base, size
        self.read = self.write = self.filled = 0


class Machine:
    """One PE with local memory, running against ``memory`` (``read(address, n)``, ``write``)."""

    def __init__(self, memory, *, lines=8192):
        self.memory = memory
        self.local = np.zeros((lines, LINE), np.uint8)
        self.buffers = {}
        self.a, self.blocks, self.state = [], [], None
        self.received, self.sent = deque(), deque()     # lines of the reduction ring
        self.executed = 0

    def run(self, program):
        """Execute a program, yielding what it waits for: a barrier, lines of the ring."""
        address = program
        while True:
            words = np.frombuffer(bytes(self.memory.read(address, LINE)), "<u4")
            address += LINE
            op = int(words[0]) & 0xff
            if op == 0x0F:
                return
            if op == 0x03:
                yield machine_ring.BARRIER
                continue
            fields = [int(w) for w in words]
            while op == 0x24 and machine_ring.waits(self, fields):
                yield machine_ring.RING
            self.execute(op, fields)
            self.executed += 1

    def execute(self, op, w):
        table = {0x00: lambda w: None, 0x01: self._configure, 0x02: lambda w: None,
                 0x10: self._dma_in, 0x11: self._dma_out, 0x12: self._gather,
                 0x20: self._load_a, 0x21: self._dot, 0x22: self._score,
                 0x23: self._weigh, 0x24: self._reduce, 0x30: self._simd, 0x40: self._transpose}
        if op not in table:
            raise Refused(1, 0, f"Opcode {op:#x} is unknown")
        table[op](w)

    def _configure(self, w):
        self.buffers[w[1]] = Buffer(w[2], w[3])

    def _acquire(self, w, at, *, producer):
        """Local lines of an operand in order, starting at its first; and what ends its use."""
        number, offset, wait, release = w[at] & 31, w[at] >> 8, w[at + 1] & 0xffff, w[at + 1] >> 16
        buffer = self.buffers.get(number)
        if buffer is None or max(wait, release, offset + 1) > buffer.size:
            raise Refused(3, number, f"CB {number} is too small")
        have = buffer.size - buffer.filled if producer else buffer.filled
        if max(wait, release) > have:
            raise Refused(5, number, f"CB {number} has {have} lines, {wait} are waited for")
        start = (buffer.write if producer else buffer.read) + offset
        index = buffer.base + (start + np.arange(buffer.size)) % buffer.size

        def end():
            if producer:
                buffer.write = (buffer.write + release) % buffer.size
                buffer.filled += release
            else:
                buffer.read = (buffer.read + release) % buffer.size
                buffer.filled -= release
        return index, end

    def _get(self, index, byte, count):
        """``count`` bytes from byte ``byte`` of an operand."""
        first, last = byte // LINE, -(-(byte + count) // LINE)
        return self.local[index[first:last]].reshape(-1)[byte % LINE:byte % LINE + count]

    def _put(self, index, byte, values):
        first, last = byte // LINE, -(-(byte + len(values)) // LINE)
        block = self.local[index[first:last]].reshape(-1)
        block[byte % LINE:byte % LINE + len(values)] = values
        self.local[index[first:last]] = block.reshape(-1, LINE)

    @staticmethod
    def _signed(value):
        return value - (1 << 32) if value >> 31 else value

    def _dma_in(self, w, index_of=None):
        rows, count = w[6], w[7]
        if not rows or not count:
            raise Refused(2, 6 if not rows else 7, "A transfer of nothing")
        if w[1] >> 4 or (index_of is not None and w[1] >> 2):
            raise Refused(2, 1, f"There is no hint or group {w[1]}")
        place, end = self._acquire(w, 2, producer=True)
        for r in range(rows):
            step = r if index_of is None else index_of[r]
            source = (w[4] | w[5] << 32) + step * self._signed(w[8])
            read = self.memory.read(source, count)
            if w[1] & 3 != Hint.PREFETCH:
                self._put(place, w[10] + r * w[9], read)
        end()

    def _gather(self, w):
        place, end = self._acquire(w, 12, producer=False)
        index = np.frombuffer(self._get(place, 0, 4 * w[6]).tobytes(), "<u4").astype(int)
        if w[11] and (index >= w[11]).any():
            raise Refused(2, 12, f"Index {index.max()} is past the limit of {w[11]}")
        self._dma_in(w, index)
        end()

    def _dma_out(self, w):
        if not w[6] or not w[7]:
            raise Refused(2, 6 if not w[6] else 7, "A transfer of nothing")
        if w[1] not in (Hint.NONE, Hint.NO_ALLOCATE):
            raise Refused(2, 1, f"Hint {w[1]} is not one of writes")
        place, end = self._acquire(w, 2, producer=False)
        for r in range(w[6]):
            target = (w[4] | w[5] << 32) + r * self._signed(w[8])
            self.memory.write(target, self._get(place, w[10] + r * w[9], w[7]))
        end()

    def _operand(self, w, form, rows, blocks, mixed, *, elements_at=2, scales_at=4):
        """Read a dot operand as codes and scales; returns it and what ends its use."""
        places, ends = [], []
        for at in (elements_at, scales_at):
            if w[at] == w[at + 1] == 0 and at == scales_at:
                places.append(None)
                continue
            place, end = self._acquire(w, at, producer=False)
            places.append(place)
            ends.append(end)
        mx = form in (Format.E4M3, Format.E5M2, Format.E2M1)
        columns = blocks * (16 if mixed else 32)
        bits = {Format.BF16: 16, Format.FP16: 16, Format.E4M3: 8, Format.E5M2: 8,
                Format.E2M1: 4}[form]
        raw = np.stack([self._get(places[0], r * (w[9] & 0xffff) * LINE, columns * bits // 8)
                        for r in range(rows)])
        if bits == 4:
            codes = np.stack([raw & 15, raw >> 4], axis=-1).reshape(rows, -1)
        else:
            codes = raw if bits == 8 else raw.view("<u2")
        scales = None
        if mx:
            stride, count = w[9] >> 16, -(-columns // 32)
            scales = np.stack([self._get(places[1], r * stride, count) for r in range(rows)])
        return dot.Operand(form, codes, scales), lambda: [end() for end in ends]

    def _load_a(self, w):
        if len(self.a) == 2:
            raise Refused(5, 0, "Both A buffers are full")
        self.a.append((list(w), Format(w[1] & 15)))
        form, rows, blocks = Format(w[1] & 15), w[8] & 0xffff, w[8] >> 16
        # The length of a block depends on the partner; both readings are kept until the DOT.
        mixed = form in (Format.BF16, Format.FP16)
        saved = {b: (vars(self.buffers[b]).copy()) for b in self.buffers}
        halves, end = self._operand(w, form, rows, blocks, True)
        whole = halves
        room = (w[9] & 0xffff) * LINE * 8 // SPECS[form].bits
        if not mixed and 2 * halves.codes.shape[1] <= room:
            for b, state in saved.items():
                vars(self.buffers[b]).update(state)
            whole, end = self._operand(w, form, rows, blocks, False)
        self.a[-1] = (halves, whole, blocks, form)
        end()

    def _dot(self, w):
        if not self.a:
            raise Refused(5, 0, "No A buffer is full")
        a_form, b_form = Format(w[1] & 15), Format(w[1] >> 4 & 15)
        wide = (Format.BF16, Format.FP16)
        mixed = a_form in wide or b_form in wide
        halves, whole, blocks, form = self.a[0]
        columns, count = w[8] & 0xffff, w[8] >> 16
        if count != blocks or form != a_form:
            raise Refused(2, 8, "The A buffer holds another operand")
        b, end_b = self._operand(w, b_form, columns, count, mixed)
        place, end_out = self._acquire(w, 6, producer=True)
        result = dot.matmul(halves if mixed else whole, b)
        out = np.zeros((columns, ROWS), np.float32)
        out[:, :result.shape[1]] = result
        for n in range(columns):
            at = n * (w[10] & 0xffff) * LINE
            if w[1] >> 9 & 1:
                old = self._get(place, at, LINE).view("<f4")
                with np.errstate(all="ignore"):
                    out[n] = old + out[n]
            self._put(place, at, out[n].view(np.uint8))
        if w[1] >> 8 & 1:
            self.a.pop(0)
        end_b()
        end_out()

    def _score(self, w):
        machine_attention.score(self, w, Refused)

    def _weigh(self, w):
        machine_attention.weigh(self, w, Refused)

    def _reduce(self, w):
        machine_ring.reduce(self, w, Refused)

    def _simd(self, w):
        simd_command(self, w)

    def _transpose(self, w):
        size, rows, columns = w[1] & 15, w[8] & 0xffff, w[8] >> 16
        source, end_source = self._acquire(w, 2, producer=False)
        target, end_target = self._acquire(w, 4, producer=True)
        stride, out_stride = w[9] & 0xffff, w[9] >> 16
        data = np.stack([self._get(source, r * stride, columns * size).reshape(columns, size)
                         for r in range(rows)])
        for c in range(columns):
            self._put(target, c * out_stride, data[:, c].reshape(-1))
        end_source()
        end_target()


def simd_command(machine, w):
    """Execute a SIMD command on a machine's local memory."""
    rows, columns = w[8] & 0xffff, w[8] >> 16
    if not rows or not columns:
        raise Refused(2, 8, "A SIMD command of no elements")
    field = {"src": w[1] & 15, "src1": w[1] >> 4 & 15, "form": w[1] >> 8 & 15}
    op, mode, reduce, norm = w[1] >> 12 & 15, w[1] >> 22 & 3, w[1] >> 20 & 3, w[1] >> 29 & 3
    affine, function = bool(w[1] >> 28 & 1), w[1] >> 16 & 15
    if norm == 3 or (norm and (op or reduce or affine or function or mode != 1)):
        raise Refused(2, 1, "A norm is not joined with another operation, its parameters are rows")
    if op == simd.Operation.ROTATE and (affine or mode == 2):
        raise Refused(2, 1, "A rotation is by pairs of source 1, and without affine")
    if (op or norm) and not (w[4] or w[5]):
        raise Refused(2, 4, "There is no source 1")
    if op == simd.Operation.ROTATE and columns % 2:
        raise Refused(2, 8, "A rotation is of pairs of columns")
    ends = []

    def read(at, form, stride, count_rows, count_columns):
        place, end = machine._acquire(w, at, producer=False)
        ends.append(end)
        each = 4 if form == Format.FP32 else 2
        raw = np.stack([machine._get(place, r * stride * LINE, count_columns * each)
                        for r in range(count_rows)])
        return raw.view("<u4" if each == 4 else "<u2")
    src0 = read(2, field["src"], w[9] & 0xffff, rows, columns)
    src1 = None
    if norm:
        src1 = read(4, field["src1"], w[9] >> 16, norm, columns)    # gamma, or gamma and beta
    elif op:
        if mode == 2:
            src1 = read(4, Format.FP32, 0, 1, rows)
        else:
            src1 = read(4, field["src1"], w[9] >> 16, rows if mode == 0 else 1, columns)
    place, end = machine._acquire(w, 6, producer=True)
    ends.append(end)
    form = Format(field["form"])
    mx = not reduce and form in (Format.E4M3, Format.E5M2, Format.E2M1)
    if mx:
        scale_place, end = machine._acquire(w, 13, producer=True)
        ends.append(end)
    factors = None
    if affine or norm:
        factors = tuple(np.array([w[11], w[12]], np.uint32).view(np.float32))
    result = simd.simd(src0, src1, format0=field["src"], format1=field["src1"], operation=op,
                       mode=mode, affine=factors, function=function, reduce=reduce,
                       destination=form, rule=w[1] >> 24 & 7, norm=norm,
                       stochastic=bool(w[1] >> 27 & 1), seed=w[15])
    if reduce:
        machine._put(place, 0, result.astype("<u4").view(np.uint8))
    else:
        codes, scales = result if mx else (result, None)
        for r in range(rows):
            row = codes[r]
            if form == Format.E2M1:
                row = row[0::2] | row[1::2] << 4
            raw = np.ascontiguousarray(row).view(np.uint8)
            padded = np.zeros(len(raw) if mx else -(-len(raw) // LINE) * LINE, np.uint8)
            padded[:len(raw)] = raw
            machine._put(place, r * (w[10] & 0xffff) * LINE, padded)
            if mx:
                machine._put(scale_place, r * (w[10] >> 16), scales[r])
    for end in ends:
        end()
