"""What the DMA and layout commands do to bytes: rows in, rows out, transpose."""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LINE_BYTES = 64


@dataclass(frozen=True)
class Place:
    """A granted operand: first line, and the first and one past the last line of its CB."""

    start: int
    base: int
    limit: int

    def byte(self, offset: int) -> int:
        """Byte address in local memory of byte ``offset`` of the operand, wrapped in its CB."""
        size = (self.limit - self.base) * LINE_BYTES
        return self.base * LINE_BYTES + ((self.start - self.base) * LINE_BYTES + offset) % size

    def bytes(self, offset: int, count: int) -> list[int]:
        """Byte addresses of ``count`` bytes from byte ``offset`` on."""
        return [self.byte(offset + n) for n in range(count)]


@dataclass(frozen=True)
class Rows:
    """Fields of ``DMA_IN``, ``DMA_OUT`` and ``GATHER`` [byte]."""

    address: int
    rows: int
    row_bytes: int
    stride: int = 0
    local_stride: int = 0
    offset: int = 0

    def spans(self, place: Place, indices: Sequence[int] | None = None):
        """``(far byte address, local byte addresses)`` of every row, in order."""
        for row in range(self.rows):
            step = row if indices is None else indices[row]
            yield (self.address + step * self.stride,
                   place.bytes(self.offset + row * self.local_stride, self.row_bytes))


def rows_in(local: np.ndarray, far: np.ndarray, rows: Rows, place: Place,
            indices: Sequence[int] | None = None) -> None:
    """Copy rows of ``far`` into ``local``, both flat arrays of bytes."""
    for address, span in rows.spans(place, indices):
        local[span] = far[address:address + rows.row_bytes]


def rows_out(local: np.ndarray, far: np.ndarray, rows: Rows, place: Place) -> None:
    """Copy rows of ``local`` into ``far``, both flat arrays of bytes."""
    for address, span in rows.spans(place):
        far[address:address + rows.row_bytes] = local[span]


def transpose(local: np.ndarray, source: Place, destination: Place, *, rows: int, columns: int,
              element_bytes: int, source_stride: int, destination_stride: int) -> None:
    """Row ``c`` of the destination becomes column ``c`` of the source."""
    block = np.array([[local[source.bytes(r * source_stride + c * element_bytes, element_bytes)]
                       for c in range(columns)] for r in range(rows)], dtype=np.uint8)
    for c in range(columns):
        local[destination.bytes(c * destination_stride, rows * element_bytes)] = block[:, c].ravel()
