"""Arrays in device memory: where they are and how their rows are laid out."""
from dataclasses import dataclass

import numpy as np

from cosim.golden import dot, simd
from cosim.golden import formats as number_formats
from cosim.golden import quantise as quantiser
from host.isa import LINE, Format, Rule, ceil, lines, scale_stride


@dataclass(frozen=True)
class Tensor:
    """A matrix in device memory, row-major, each row starting on a line, K (columns) contiguous.

    The layout is that of an operand in local memory, so that a transfer is one run of lines.
    ``scales`` is the address of the block scales, one row every ``scale_stride`` bytes, or None.
    """

    address: int
    rows: int
    columns: int
    format: Format
    scales: int | None = None

    @property
    def row_lines(self):
        return lines(self.format.row_bytes(self.columns))

    @property
    def row_bytes(self):
        return self.row_lines * LINE

    @property
    def scale_stride(self):
        return scale_stride(self.columns)

    @property
    def element_bytes(self):
        """Bytes of the element array."""
        return self.rows * self.row_bytes

    @property
    def scale_bytes(self):
        """Bytes of the scale array, whole lines."""
        return ceil(self.rows * self.scale_stride, LINE) if self.format.is_mx else 0

    def row(self, index):
        """Address of a row of elements."""
        return self.address + index * self.row_bytes

    def scale_row(self, index):
        return self.scales + index * self.scale_stride


@dataclass(frozen=True)
class Packed:
    """The bytes of a matrix in device layout: elements and, for MX formats, block scales."""

    rows: int
    columns: int
    format: Format
    elements: np.ndarray
    scales: np.ndarray | None

    @property
    def operand(self):
        """The same numbers as the golden models take them: codes and scales, whole blocks."""
        count = ceil(self.columns, 32 if self.format.is_mx else 16)
        codes = unpack_codes(self.elements, self.format)[:, :count]
        scales = None if self.scales is None else self.scales[:, :-(-self.columns // 32)]
        return dot.Operand(number_formats.Format(self.format), codes, scales)


def pack_codes(codes, form):
    """Bytes of rows of element codes, each row padded with zeros to whole lines."""
    rows = codes.shape[0]
    if form == Format.E2M1:
        padded = np.zeros((rows, ceil(codes.shape[1], 2)), np.uint8)
        padded[:, :codes.shape[1]] = codes
        raw = padded[:, 0::2] | padded[:, 1::2] << 4
    else:
        raw = np.ascontiguousarray(codes.astype(f"<u{form.bits // 8}")).view(np.uint8)
        raw = raw.reshape(rows, -1)
    out = np.zeros((rows, ceil(raw.shape[1], LINE)), np.uint8)
    out[:, :raw.shape[1]] = raw
    return out


def unpack_codes(elements, form):
    """Return the element codes of rows of bytes."""
    if form == Format.E2M1:
        codes = np.empty((elements.shape[0], elements.shape[1] * 2), np.uint8)
        codes[:, 0::2], codes[:, 1::2] = elements & 15, elements >> 4
        return codes
    return np.ascontiguousarray(elements).view(f"<u{form.bits // 8}")


def pack_scales(scales, columns):
    """Bytes of block scales, one row every ``scale_stride(columns)`` bytes."""
    out = np.zeros((scales.shape[0], scale_stride(columns)), np.uint8)
    out[:, :scales.shape[1]] = scales
    return out


def pack(values, form, *, rule=Rule.FLOOR):
    """Convert FP32 ``values`` [rows, columns] to ``form`` in device layout."""
    values = np.atleast_2d(np.asarray(values, np.float32))
    rows, columns = values.shape
    if not form.is_mx:
        codes = simd.narrow(values.view(np.uint32), number_formats.Format(form))
        return Packed(rows, columns, form, pack_codes(codes, form), None)
    padded = np.zeros((rows, ceil(columns, 32)), np.float32)
    padded[:, :columns] = values
    codes, scales = quantiser.quantise(padded, number_formats.Format(form), rule)
    return Packed(rows, columns, form, pack_codes(codes, form), pack_scales(scales, columns))
