"""What a program of a message engine waits for, and tells, beside its collective."""
from dataclasses import dataclass

from host.network_isa import Compare

ABSOLUTE = "memory"     # buffer of words whose addresses are known
STARTED, ENDED = 0, 4   # words of a lane's flags


@dataclass(frozen=True)
class Order:
    """Semaphores in memory and the barrier of the work packet.

    Parameters
    ----------
    arrive : bool
        The collective starts when all PEs of the packet are at their barrier.
    wait : tuple of (address, value, Compare)
        It starts when these words of memory compare so.
    signal : tuple of (address, value)
        Words that are written when it has ended.
    """

    arrive: bool = False
    wait: tuple = ()
    signal: tuple = ()


def begin(lane, number, order, sequence):
    """First entries of a lane: lane 0 joins the barrier, and tells the others."""
    if order is None:
        return
    if order.arrive and number == 0:
        lane.arrive()
        lane.set((f"flags {number}", STARTED), sequence)
    elif order.arrive:
        lane.wait(("flags 0", STARTED), sequence)
    for address, value, compare in order.wait:
        lane.wait((ABSOLUTE, address), value, Compare(compare))


def finish(lanes, order, sequence):
    """Last entries: lane 0 waits for the others, and tells whoever waits for the collective."""
    if order is None or not order.signal:
        return
    for lane in lanes[1:]:
        lane.last((f"flags {lane.number}", ENDED), sequence)
        lanes[0].wait((f"flags {lane.number}", ENDED), sequence)
    for address, value in order.signal:
        lanes[0].last((ABSOLUTE, address), value)


__all__ = ["ABSOLUTE", "Order", "begin", "finish"]
