"""The reduction ring of golden PEs: the command REDUCE, and PEs that run together."""
from collections import deque

import numpy as np

from cosim.golden.simd import Operation, binary

LINE = 64
LANES = 16
BARRIER, RING = "barrier", "ring"       # what a PE may wait for
MINUS_ZERO = np.full(LANES, 0x80000000, np.uint32)      # x + -0 is x


def check(machine, w, refused):
    """``refused(code, field, text)`` raises for a REDUCE that the reduction engine refuses."""
    if not w[1] & 3 or w[1] & ~7:
        raise refused(2, 1, "REDUCE needs lines from somewhere")
    if not w[8] & 0xffff or w[8] >> 16:
        raise refused(2, 8, "REDUCE of no lines")
    if w[1] & 2 and w[11] == w[12] == 0:
        raise refused(2, 11, "REDUCE lacks its source")


def reduce(machine, w, refused):
    """Lines from the ring, from local memory, or the sums of both; to local memory or the ring.

    The lines are there.
    """
    check(machine, w, refused)
    receive, local, send = (w[1] >> bit & 1 for bit in range(3))
    count = w[8] & 0xffff
    source, end_source = machine._acquire(w, 11, producer=False) if local else (None, lambda: None)
    place, end = machine._acquire(w, 6, producer=True)
    for n in range(count):
        line = machine.received.popleft() if receive else MINUS_ZERO
        if local:
            own = machine._get(source, n * (w[9] & 0xffff) * LINE, LINE).view("<u4")
            line = binary(Operation.ADD, own, line)
        line = np.ascontiguousarray(line, "<u4")
        if send:
            machine.sent.append(line)
        else:
            machine._put(place, n * (w[10] & 0xffff) * LINE, line.view(np.uint8))
    end_source()
    end()


def waits(machine, w):
    """Whether the next command, a REDUCE, lacks lines of the ring."""
    return w[1] & 1 and len(machine.received) < w[8] & 0xffff


def joined(machines, order):
    """Connect machines in a ring: each sends to the next of ``order``, the last to the first.

    A machine sends to nobody where its follower is missing from ``machines``.
    """
    for at, number in enumerate(order):
        follower = order[(at + 1) % len(order)]
        if number in machines and follower in machines:
            machines[follower].received = machines[number].sent = deque()


def run_together(machines, programs):
    """Run programs by number of their machine to their ends, with barriers and the ring.

    :exc:`RuntimeError` if all wait for each other.
    """
    runs = {number: machines[number].run(program) for number, program in programs.items()}
    state = dict.fromkeys(runs, BARRIER)
    while runs:
        for number in runs:     # the barrier is over
            state[number] = None
        moved = True
        while moved and runs:
            moved = False
            for number in [n for n in runs if state[n] != BARRIER]:
                before = machines[number].executed
                state[number] = next(runs[number], "end")
                moved |= state[number] != RING or machines[number].executed != before
                if state[number] == "end":
                    del runs[number]
        if any(state[number] == RING for number in runs):
            raise RuntimeError(f"PEs wait for the ring: {sorted(runs)}")
