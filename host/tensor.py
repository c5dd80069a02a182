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

    def slice(self, first, rows):
        """Some rows as a tensor.

        :exc:`ValueError` if there are no such rows, or their scales do not fill whole lines.
        """
        if not 0 <= first < first + rows <= self.rows:
            raise ValueError(f"Rows must lie in 0 to {self.rows}, not {first} to {first + rows}")
        scales = None
        if self.format.is_mx:
            scales = self.scale_row(first)
            if scales % LINE or first + rows < self.rows and self.scale_row(first + rows) % LINE:
                raise ValueError(f"Rows {first} to {first + rows} must have scales of whole lines, "
                                 f"not of {self.scale_stride} bytes a row")
        return Tensor(self.row(first), rows, self.columns, self.format, scales)


@dataclass(frozen=True)
class Part:
    """Some rows and columns of an FP32 matrix in device memory, for results.

    :exc:`ValueError` if they are not inside it, or do not start on a line.
    """

    whole: Tensor
    first_row: int
    rows: int
    first_column: int
    columns: int

    def __post_init__(self):
        inside = (0 <= self.first_row <= self.whole.rows - self.rows
                  and 0 <= self.first_column <= self.whole.columns - self.columns)
        if self.format != Format.FP32 or not inside or self.first_column * 4 % LINE:
            raise ValueError(f"A part must start on a line of an FP32 matrix and lie in it, not at "
                             f"row {self.first_row}, column {self.first_column}")

    @property
    def format(self):
        return self.whole.format

    @property
    def row_bytes(self):
        return self.whole.row_bytes

    def row(self, index):
        """Address of a row."""
        return self.whole.row(self.first_row + index) + 4 * self.first_column


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
