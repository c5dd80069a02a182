"""A pool of pages of keys or values, as a paged cache has it."""
import numpy as np

from host.tensor import Packed


def pooled(packed, order, rows):
    """A pool of 9 pages of ``rows`` rows that holds those of ``packed`` in ``order``."""
    def spread(data):
        pool = np.full((9 * rows, data.shape[1]), 0x35, np.uint8)
        for page, place in enumerate(order):
            part = data[page * rows:page * rows + rows]
            pool[place * rows:place * rows + len(part)] = part
        return pool
    scales = None if packed.scales is None else spread(packed.scales)
    return Packed(9 * rows, packed.columns, packed.format, spread(packed.elements), scales)
