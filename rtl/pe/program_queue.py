"""The program that a PE runs, and the one that waits behind it."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.clockgate import gated_domain
from rtl.pe.interfaces import launch_layout, request_layout, response_layout
from rtl.pe.program_fetch import ProgramFetch, fetched_layout


class ProgramQueue(wiring.Component):
    """Fetches the program that runs and, beside it, the first lines of the one that waits.

    The first request for a program that was taken leaves 1 cycle later, if the program that runs
    asks for nothing then. A program whose first lines have come gives its first command in the
    cycle after ``take``. Its clock stops between events, so that the choice of a command rests
    while units work. Source: this project's choice.

    Members
    -------
    launch : In(stream.Signature(launch_layout()))
        The next program; ready while none waits and no answer to a dropped one is outstanding.
        ``ready`` is a function of registers.
    go, drop : In(1)
        For one cycle, from the cycle after the program was taken on: it may start; it is forgotten.
    released : Out(1)
        A program waits that may start.
    watchdog : Out(32)
        That of the program that waits.
    take : In(1)
        The program that waits runs from the next cycle on. Only while ``released`` is high and
        nothing is ``outstanding``.
    stop : In(1)
        Ends the fetching of the program that runs.
    o : Out(stream.Signature(fetched_layout()))
        Commands of the program that runs.
    outstanding : Out(1)
        A request for the program that runs is not answered.
    resting : Out(1)
        Nothing is asked for or outstanding for the program that waits. A function of registers.
    request, response : Out(stream.Signature(request_layout())), In(...)
        Reads, tags 0 to 15; may be withdrawn.
    """

    def __init__(self):
        super().__init__({
            "launch": In(stream.Signature(launch_layout())), "go": In(1), "drop": In(1),
            "released": Out(1), "watchdog": Out(32), "take": In(1), "stop": In(1),
            "o": Out(stream.Signature(fetched_layout())), "outstanding": Out(1),
            "resting": Out(1), "request": Out(stream.Signature(request_layout())),
            "response": In(stream.Signature(response_layout()))})

    def elaborate(self, platform):
        m = Module()
        turn = Signal()                         # which of the two fetches the program that runs
        held, permitted = Signal(), Signal()    # a program waits; it may start
        fetches = [ProgramFetch(), ProgramFetch()]
        taken = self.launch.valid & self.launch.ready
        asking, answer = [fetch.request.valid for fetch in fetches], self.response.payload
        for n, fetch in enumerate(fetches):
            m.submodules[f"fetch{n}"] = fetch
            runs = turn == n
            first = runs | ~asking[1 - n]       # the program that runs goes before
            m.d.comb += [
                fetch.start.valid.eq(taken & ~runs),
                fetch.start.address.eq(self.launch.payload.program),
                fetch.stop.eq(Mux(runs, self.stop, self.drop)),
                fetch.request.ready.eq(self.request.ready & first),
                fetch.response.payload.eq(answer), fetch.response.payload.tag.eq(answer.tag[:3]),
                fetch.response.valid.eq(self.response.valid & (answer.tag[3] == n)),
                fetch.o.ready.eq(self.o.ready & runs)]
        one, other = fetches
        chosen = Mux(turn, asking[1], ~asking[0])
        m.d.comb += [
            self.request.valid.eq(asking[0] | asking[1]),
            self.request.payload.address.eq(Mux(chosen, other.request.payload.address,
                                                one.request.payload.address)),
            self.request.payload.tag.eq(Cat(Mux(chosen, other.request.payload.tag[:3],
                                                one.request.payload.tag[:3]), chosen)),
            self.response.ready.eq(1),
            self.o.payload.eq(Mux(turn, other.o.payload, one.o.payload)),
            self.o.valid.eq(Mux(turn, other.o.valid, one.o.valid)),
            self.outstanding.eq(Mux(turn, other.outstanding, one.outstanding)),
            self.launch.ready.eq(~held & ~Mux(turn, one.outstanding, other.outstanding)),
            self.resting.eq(~Mux(turn, one.outstanding | asking[0],
                                 other.outstanding | asking[1])),
            self.released.eq(held & (permitted | self.go))]
        gated_domain(m, name="turns", enable=ResetSignal("sync") | self.go | taken | self.take
                     | self.drop)
        with m.If(self.go & held):
            m.d.turns += permitted.eq(1)
        with m.If(taken):
            m.d.turns += [held.eq(1), self.watchdog.eq(self.launch.payload.watchdog)]
        with m.If(self.take):
            m.d.turns += turn.eq(~turn)
        with m.If(self.take | self.drop):
            m.d.turns += [held.eq(0), permitted.eq(0)]
        return m
