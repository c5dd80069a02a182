"""From submission entries to results: the streams, and the engines that they share."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.arbiter import RoundRobin
from rtl.common.select import one_of
from rtl.link.interfaces import LinkPort, SlotKind

from .axi import beat_layout, burst_layout
from .copy_in import CopyIn
from .copy_out import CopyOut
from .events import EventCounters
from .jobs import STREAM_BITS, STREAMS, done_layout, entry_layout, result_layout
from .link_hub import LinkHub
from .stream_runner import StreamRunner


class Dispatcher(wiring.Component):
    """Runs entries: four streams, one engine for copies each way, launches on any die, events.

    Entries of a stream run in order, each after the end of the one before; streams overlap, but
    copies of the same direction run one at a time. Streams take turns at what they share.

    Parameters
    ----------
    dies : int
        Compute dies.
    buffer_lines, tag_bits : int
        See :class:`CopyIn`.

    Members
    -------
    i : In(stream.Signature(entry_layout()))
        Entries.
    o : Out(stream.Signature(result_layout()))
        Results, in the order of their ends.
    links : Out(LinkPort()).array(dies)
        Links, by die.
    reads, beat, beat_valid, writes, beats, written, written_error
        See :class:`CopyIn` and :class:`CopyOut`.
    abort : In(4)
        For one cycle: streams whose launch is to end.
    lost : In(16)
        Dies whose link is down.
    now, idle : In(32), Out(1)
        Time; nothing waits or runs.
    active : Out(1)
        While it is low, nothing changes until something comes from a link, the host or ``i``.
    """

    def __init__(self, *, dies, buffer_lines=256, tag_bits=7):
        self.dies = dies
        self.copy_in = CopyIn(buffer_lines=buffer_lines, tag_bits=tag_bits)
        self.copy_out = CopyOut(tag_bits=tag_bits)
        pins = {name: self.copy_in.signature.members[name]
                for name in ("reads", "beat", "beat_valid")}
        super().__init__(pins | {
            "writes": Out(stream.Signature(burst_layout())),
            "beats": Out(stream.Signature(beat_layout())),
            "written": In(1), "written_error": In(1),
            "i": In(stream.Signature(entry_layout())),
            "o": Out(stream.Signature(result_layout())), "links": Out(LinkPort()).array(dies),
            "abort": In(STREAMS), "lost": In(16), "now": In(32), "idle": Out(1),
            "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.copy_in = copy_in = self.copy_in
        m.submodules.copy_out = copy_out = self.copy_out
        m.submodules.hub = hub = LinkHub(dies=self.dies, clients=3)
        runners = [StreamRunner(number=n, dies=self.dies) for n in range(STREAMS)]
        m.submodules.events = events = EventCounters()
        connect(m, copy_in.reads, flipped(self.reads))
        connect(m, copy_out.writes, flipped(self.writes))
        connect(m, copy_out.beats, flipped(self.beats))
        connect(m, copy_in.request, hub.requests[0])
        connect(m, copy_out.request, hub.requests[1])
        for die in range(self.dies):
            connect(m, hub.links[die], flipped(self.links[die]))

        response, answer = hub.answer.body.response, hub.answer
        is_response = hub.valid & (answer.kind == SlotKind.RESPONSE)
        m.d.comb += [
            copy_in.beat.eq(self.beat), copy_in.beat_valid.eq(self.beat_valid),
            copy_out.written.eq(self.written), copy_out.written_error.eq(self.written_error),
            copy_in.response.eq(response), copy_out.response.eq(response),
            copy_in.response_valid.eq(is_response & response.write),
            copy_out.response_valid.eq(is_response & ~response.write),
            copy_in.lost.eq(self.lost), copy_out.lost.eq(self.lost), hub.lost.eq(self.lost)]

        self._choose(m, "in_", [runner.copy_in for runner in runners], copy_in.job)
        self._choose(m, "out_", [runner.copy_out for runner in runners], copy_out.job)
        self._choose(m, "launch", [runner.request for runner in runners], hub.requests[2])
        self._choose(m, "result", [runner.o for runner in runners], self.o)

        # A copy's end goes to its stream; if both engines end at once, one waits.
        m.d.comb += [copy_in.done.ready.eq(1), copy_out.done.ready.eq(~copy_in.done.valid)]
        done = Signal(done_layout())
        m.d.comb += done.eq(
            Mux(copy_in.done.valid, copy_in.done.payload, copy_out.done.payload))
        any_done = copy_in.done.valid | copy_out.done.valid
        completion = answer.body.completion
        ended = hub.valid & (answer.kind == SlotKind.COMPLETION)
        stream_of = self.i.payload.stream[:STREAM_BITS]
        for n, runner in enumerate(runners):
            m.submodules[f"stream{n}"] = runner
            m.d.comb += [
                runner.i.payload.eq(self.i.payload),
                runner.i.valid.eq(self.i.valid & (stream_of == n)),
                runner.copied.eq(done),
                runner.copied_valid.eq(any_done & (done.stream == n)),
                runner.completion.eq(completion),
                runner.completion_valid.eq(ended & (completion.id[:STREAM_BITS] == n)),
                runner.abort.eq(self.abort[n]), runner.lost.eq(self.lost),
                runner.now.eq(self.now), events.record[n].eq(runner.record),
                events.event[n].eq(runner.event), runner.count.eq(events.count[n])]
        m.d.comb += [
            self.i.ready.eq(Array(runner.i.ready for runner in runners)[stream_of]),
            self.idle.eq(Cat(runner.idle for runner in runners).all()),
            self.active.eq(Cat(
                (runner.active for runner in runners), copy_in.active, copy_out.active, hub.active,
                self.lost).any())]
        return m

    def _choose(self, m, name, sources, target):
        """Streams take turns."""
        m.submodules[name] = turns = RoundRobin(STREAMS)
        m.d.comb += [
            turns.requests.eq(Cat(source.valid for source in sources)),
            turns.ready.eq(target.ready), target.valid.eq(turns.requests.any()),
            target.payload.eq(one_of(turns.grant, [source.payload for source in sources]))]
        for n, source in enumerate(sources):
            m.d.comb += source.ready.eq(turns.grant[n] & target.ready)
