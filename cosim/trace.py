"""What every unit of every PE did and when, as a Chrome trace for Perfetto (ui.perfetto.dev)."""
import json
from pathlib import Path

import numpy as np

UNITS = ["command processor", "DMA in", "DMA out", "A loader", "dot product", "reduction",
         "SIMD", "layout", "softmax"]
STATES = [None, "busy", "starved", "blocked"]     # as UnitState of rtl/pe/interfaces.py
COLOURS = [None, "good", "bad", "terrible"]       # names that the trace viewer defines
UNIT_BITS = 2


def spans(cycles, values, end):
    """Constant stretches of one recorded port: ``(unit, state, first cycle, cycles)``."""
    for unit in range(len(UNITS)):
        state = (values >> (UNIT_BITS * unit)) & (len(STATES) - 1)
        state = np.concatenate([[0], state])
        start = np.concatenate([[0], cycles])
        change = np.flatnonzero(np.diff(state, prepend=-1))
        stop = np.append(start[change[1:]], end)
        for first, last, what in zip(start[change], stop, state[change], strict=True):
            if what and last > first:
                yield unit, int(what), int(first), int(last - first)


def chrome_events(recorded, *, end_cycle, clock_hertz):
    """Events of the Chrome trace format; times in microseconds.

    Parameters
    ----------
    recorded : iterable of (die, lane, cycles, values)
        As ``Engine.events`` gives it; the lane is a PE.
    end_cycle : int
        Cycle at which the recording ended.
    clock_hertz : float
        Clock frequency that turns cycles into time [Hz].
    """
    for process, (die, lane, cycles, values) in enumerate(recorded, start=1):
        yield {"ph": "M", "name": "process_name", "pid": process,
               "args": {"name": f"{die} {lane}"}}
        for unit, name in enumerate(UNITS):
            yield {"ph": "M", "name": "thread_name", "pid": process, "tid": unit,
                   "args": {"name": name}}
        for unit, state, first, length in spans(cycles, values, end_cycle):
            yield {"ph": "X", "name": STATES[state], "cname": COLOURS[state], "pid": process,
                   "tid": unit, "ts": first * 1e6 / clock_hertz, "dur": length * 1e6 / clock_hertz,
                   "args": {"cycle": first, "cycles": length}}


def write(path, recorded, *, end_cycle, clock_hertz):
    """Write the trace as JSON to ``path``; parameters as in :func:`chrome_events`."""
    events = list(chrome_events(recorded, end_cycle=end_cycle, clock_hertz=clock_hertz))
    Path(path).write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}))
