"""The attention commands of the golden PE: SCORE and WEIGH, see docs/programming-model.md."""
from dataclasses import dataclass

import numpy as np

from cosim.golden import attention, dot
from cosim.golden.formats import Format
from cosim.golden.simd import Operation, binary

LINE, ROWS, GROUP = 64, 16, 32
WIDE = (Format.BF16, Format.FP16)


@dataclass
class Block:
    """What the softmax unit made of a block: P [rows, keys], rescale factors, inverses.

    ``state``: lines of the sums and of the maxima, if the command exports them.
    """

    codes: np.ndarray
    format: Format
    factor: np.ndarray
    inverse: np.ndarray
    state: tuple = ()


def signed(word):
    return word - (1 << 32) if word >> 31 else word


def score(machine, w, refused):
    """Scores of a block of keys, and its softmax; ``refused(code, field, text)`` raises."""
    if not machine.a:
        raise refused(5, 0, "No A buffer is full")
    a_form, b_form, p_form = Format(w[1] & 15), Format(w[1] >> 4 & 15), w[1] >> 16 & 15
    pair, first, last = w[1] >> 10 & 1, w[1] >> 11 & 1, w[1] >> 12 & 1
    share, export = w[1] >> 20 & 7, w[1] >> 13 & 1
    keys, count = w[8] & 0xffff, w[8] >> 16
    if p_form not in attention.SHIFT or share > 4 or last and export:
        raise refused(2, 1, "A format or a share that the unit does not take")
    capped, sink = w[1] >> 24 & 1, w[6] | w[7]
    if sink and not first:
        raise refused(2, 6, "Sinks belong to a first block")
    if not 1 <= keys <= 128:
        raise refused(2, 8, f"A block has 1 to 128 keys, not {keys}")
    for word in (13, 14):
        if w[word] and not capped:
            raise refused(2, word, "A soft cap's number without a soft cap")
    mixed = a_form in WIDE or b_form in WIDE
    halves, whole, blocks, form = machine.a[0]
    if count != blocks or form != a_form:
        raise refused(2, 8, "The A buffer holds another operand")
    b, end = machine._operand(w, b_form, keys, count, mixed)
    sums = np.zeros((keys, ROWS), np.float32)
    product = dot.matmul(halves if mixed else whole, b)
    sums[:, :product.shape[1]] = product
    rows = ROWS // 2 if pair else ROWS
    scores = sums[:, :rows].copy()
    if pair:
        scores[1::2] = sums[1::2, rows:]
    if first:
        machine.state = attention.State.start(rows)
    sinks = end_sink = None
    if sink:
        place, end_sink = machine._acquire(w, 6, producer=False)
        sinks = machine._get(place, 0, LINE).view("<u4")[:rows].copy()
    place = np.arange(rows) >> share
    seen = attention.visible(keys, signed(w[10]) + place, signed(w[11]) + place)
    codes = attention.softmax_block(
        np.ascontiguousarray(attention.bits(scores).T), seen, machine.state,
        scale=np.array([w[12]], np.uint32).view(np.float32)[0], format=Format(p_form),
        lanes=2 if pair else 1, cap=attention.Cap(w[13], w[14]) if capped else None, sinks=sinks)
    padded = np.zeros((rows, -(-keys // GROUP) * GROUP), codes.dtype)
    padded[:, :keys] = codes
    inverse = attention.inverse(machine.state) if last else np.zeros(rows, np.uint32)
    factor = attention.bits(np.ones(rows)) if first else machine.state.factor
    state = attention.exported(machine.state) if export else ()
    machine.blocks.append(Block(padded, Format(p_form), factor, inverse, state))
    if w[1] >> 8 & 1:
        machine.a.pop(0)
    end()
    if end_sink:
        end_sink()


def weigh(machine, w, refused):
    """P of the oldest block times V^T, into lines of O^T."""
    if not machine.blocks:
        raise refused(5, 0, "No P buffer is full")
    block = machine.blocks.pop(0)
    p_form, b_form = Format(w[1] & 15), Format(w[1] >> 4 & 15)
    accumulate, pair, last = w[1] >> 9 & 1, w[1] >> 10 & 1, w[1] >> 12 & 1
    columns, count = w[8] & 0xffff, w[8] >> 16
    mixed = p_form in WIDE or b_form in WIDE
    width, groups = count * (16 if mixed else 32), block.codes.shape[1] // GROUP
    if p_form != block.format:
        raise refused(2, 1, "P has another format")
    if not columns or -(-width // GROUP) != groups:
        raise refused(2, 8, "P has another number of keys")
    b, end_b = machine._operand(w, b_form, columns, count, mixed)
    place, end_out = machine._acquire(w, 6, producer=True)
    lines = attention.bits(dot.matmul(dot.Operand(p_form, block.codes[:, :width]), b))
    factor, inverse = block.factor, block.inverse
    if pair:
        padded = np.zeros((columns + columns % 2, ROWS // 2), np.uint32)
        padded[:columns] = lines
        lines, factor, inverse = padded.reshape(-1, ROWS), np.tile(factor, 2), np.tile(inverse, 2)
    for n, line in enumerate(lines):
        at = n * (w[10] & 0xffff) * LINE
        if accumulate:
            old = machine._get(place, at, LINE).view("<u4")
            line = binary(Operation.ADD, binary(Operation.MULTIPLY, old, factor), line)
        if last:
            line = binary(Operation.MULTIPLY, line, inverse)
        machine._put(place, at, np.ascontiguousarray(line, "<u4").view(np.uint8))
    for n, line in enumerate(block.state, len(lines)):
        whole = np.zeros(ROWS, "<u4")
        whole[:] = np.tile(line, ROWS // len(line))
        machine._put(place, n * (w[10] & 0xffff) * LINE, whole.view(np.uint8))
    end_b()
    end_out()
