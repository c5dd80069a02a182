"""What a program of a message engine waits for, and tells, beside its collective."""
from dataclasses import dataclass

from host.isa import LINE, Region, address
from host.network_isa import Compare

ABSOLUTE = "memory"     # buffer of words whose addresses are known
STARTED, ENDED = 0, 4   # words of a lane's flags
CLOCK_LINE = 6          # of the control registers of a die; its first word is the time in cycles


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
    join : int
        Barriers of the PEs of the packet that the engine goes through beside the collective: they
        do not wait for it.
    stamps : tuple of (address, address)
        Lines that get the time of the die, a word, when the collective starts and when all of it
        has ended; none: no line does.
    """

    arrive: bool = False
    wait: tuple = ()
    signal: tuple = ()
    join: int = 0
    stamps: tuple = ()


def begin(lane, number, order, sequence):
    """First entries of a lane: lane 0 joins the barrier, and tells the others."""
    if order is None:
        return
    if order.arrive and number == 0:
        lane.arrive()
        lane.set((f"flags {number}", STARTED), sequence)
    elif order.arrive:
        lane.wait(("flags 0", STARTED), sequence)
    for at, value, compare in order.wait:
        lane.wait((ABSOLUTE, at), value, Compare(compare))
    if order.stamps and number == 0:
        lane.stamp((ABSOLUTE, order.stamps[0]), (ABSOLUTE, clock(order.stamps[0])))


def finish(lanes, order, sequence):
    """Last entries: lane 0 waits for the others, and tells whoever waits for the collective."""
    if order is None or not (order.signal or order.stamps):
        return
    for lane in lanes[1:]:
        lane.last((f"flags {lane.number}", ENDED), sequence)
        lanes[0].wait((f"flags {lane.number}", ENDED), sequence)
    if order.stamps:
        lanes[0].stamp((ABSOLUTE, order.stamps[1]), (ABSOLUTE, clock(order.stamps[1])), last=True)
    for at, value in order.signal:
        lanes[0].last((ABSOLUTE, at), value)


def clock(at):
    """Address of the time of the die that an address is on, see docs/programming-model.md."""
    return address(at >> 44, Region.CONTROL, CLOCK_LINE * LINE)


__all__ = ["ABSOLUTE", "Order", "begin", "clock", "finish"]
