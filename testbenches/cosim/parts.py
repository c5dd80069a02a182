"""Small dies that the tests of the engine are run on."""
from amaranth import *
from amaranth.lib import cdc, data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from cosim import engine
from cosim.build import model
from rtl.common.clockgate import gated_domain
from rtl.common.place import Place

PHIT_BITS = 96


def task_layout():
    return data.StructLayout({"cycles": 8, "value": 72})


def next_random(state):
    """Next state of a 32-bit xorshift generator."""
    a = (state ^ (state << 13))[:32]
    b = a ^ (a >> 17)
    return (b ^ (b << 5))[:32]


class Station(wiring.Component):
    """Sends a phit in a random half of the cycles; its content depends on all it received.

    A spare output ``heard`` counts received phits, and ``alarm`` is high from the 100th on.
    """

    def __init__(self, *, seed, left="left", right="right"):
        self.seed = seed
        super().__init__({
            "rx_valid": In(1), "rx_data": In(PHIT_BITS), "tx_valid": Out(1),
            "tx_data": Out(PHIT_BITS), "heard": Out(32), "alarm": Out(1)})

    def elaborate(self, platform):
        m = Module()
        random = Signal(32, init=self.seed)
        digest = Signal(PHIT_BITS, init=self.seed)
        m.d.sync += [random.eq(next_random(random)), self.tx_valid.eq(random[5]),
                     self.tx_data.eq(digest ^ random), self.alarm.eq(self.heard >= 100)]
        with m.If(self.rx_valid):
            m.d.sync += [digest.eq((digest.rotate_left(7) ^ self.rx_data) + 1),
                         self.heard.eq(self.heard + 1)]
        return m


def worker_ports():
    return {"task": In(stream.Signature(task_layout())), "stop": In(1),
            "result": Out(stream.Signature(72)), "idle": Out(1), "trace": Out(4)}


class Worker(wiring.Component):
    """Takes a task, works on its value for some cycles, gives it back; all outputs registered.

    ``idle`` is high from the cycle after a result was taken.
    """

    def __init__(self):
        super().__init__(worker_ports())

    def elaborate(self, platform):
        m = Module()
        left, value = Signal(8), Signal(72)
        m.d.comb += [self.result.payload.eq(value), self.task.ready.eq(self.idle)]
        m.d.comb += self.trace.eq(Cat(left != 0, self.result.valid))
        with m.If(self.idle):
            with m.If(self.task.valid):
                m.d.sync += [left.eq(self.task.payload.cycles), value.eq(self.task.payload.value),
                             self.idle.eq(0)]
        with m.Elif(left != 0):
            m.d.sync += [left.eq(Mux(self.stop, 0, left - 1)),
                         value.eq(value.rotate_left(5) + left)]
        with m.Elif(~self.result.valid):
            m.d.sync += self.result.valid.eq(1)
        with m.Elif(self.result.ready):
            m.d.sync += [self.result.valid.eq(0), self.idle.eq(1)]
        reset = Signal(init=1)
        with m.If(reset):
            m.d.sync += [reset.eq(0), self.idle.eq(1)]
        return m


class Office(wiring.Component):
    """Gives tasks to its workers now and then and sends their results away as phits."""

    def __init__(self, *, workers, pause_log2=5):
        self.workers, self.pause_log2 = workers, pause_log2
        ports = wiring.Signature(worker_ports()).flip().members
        super().__init__({
            **{f"pe{i}": Out(wiring.Signature(dict(ports))) for i in range(workers)},
            "rx_valid": In(1), "rx_data": In(PHIT_BITS), "tx_valid": Out(1),
            "tx_data": Out(PHIT_BITS)})

    def elaborate(self, platform):
        m = Module()
        random = Signal(32, init=77)
        taken = Signal(range(self.workers + 1))
        m.d.sync += [random.eq(next_random(random) ^ Mux(self.rx_valid, self.rx_data[:32], 0)),
                     self.tx_valid.eq(0)]
        for i in range(self.workers):
            port = getattr(self, f"pe{i}")
            start = random[i:i + self.pause_log2] == 0
            m.d.sync += [port.stop.eq(random[20:30] == i), port.result.ready.eq(random[i + 9])]
            with m.If(port.task.ready | ~port.task.valid):
                m.d.sync += port.task.valid.eq(start)
                with m.If(start):
                    m.d.sync += [port.task.payload.cycles.eq(random[3:9]),
                                 port.task.payload.value.eq(random)]
            with m.If(port.result.ready & port.result.valid):
                m.d.sync += [self.tx_valid.eq(1), taken.eq(i),
                             self.tx_data.eq(Cat(port.result.payload, taken, port.trace))]
        return m


class Company(wiring.Component):
    """An office and its workers in one component: what the partitioned die must equal."""

    def __init__(self, *, workers):
        self.workers = workers
        super().__init__({"rx_valid": In(1), "rx_data": In(PHIT_BITS), "tx_valid": Out(1),
                          "tx_data": Out(PHIT_BITS)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.office = office = Office(workers=self.workers)
        for i in range(self.workers):
            worker = m.submodules[f"worker{i}"] = Place(Worker())
            wiring.connect(m, getattr(office, f"pe{i}"), worker)
        m.d.comb += [office.rx_valid.eq(self.rx_valid), office.rx_data.eq(self.rx_data),
                     self.tx_valid.eq(office.tx_valid), self.tx_data.eq(office.tx_data)]
        return m


class TwoClocks(wiring.Component):
    """Numbers cross from ``clk`` to ``hbm_clk`` and are added up there, by a gated clock.

    ``cycles`` and ``ticks`` count the edges of the clocks since their resets.
    """

    hbm_clk: In(1)
    cycles: Out(32)
    ticks: Out(32)
    total: Out(32)
    tx_valid: Out(1)
    tx_data: Out(PHIT_BITS)

    def elaborate(self, platform):
        m = Module()
        m.domains.hbm = hbm = ClockDomain(local=True)
        m.submodules.reset = cdc.ResetSynchronizer(ResetSignal("sync"), domain="hbm")
        m.submodules.queue = queue = fifo.AsyncFIFO(width=32, depth=4, w_domain="sync",
                                                    r_domain="hbm")
        core = Module()
        m.submodules.core = DomainRenamer({"sync": "hbm"})(core)
        gated_domain(core, name="work", enable=ResetSignal("sync") | queue.r_rdy)
        core.d.work += self.total.eq(self.total + queue.r_data)
        m.d.comb += [hbm.clk.eq(self.hbm_clk), queue.w_en.eq(self.cycles[0]),
                     queue.w_data.eq(self.cycles), queue.r_en.eq(1),
                     self.tx_valid.eq(self.ticks[3]), self.tx_data.eq(Cat(self.total, self.ticks))]
        m.d.sync += self.cycles.eq(self.cycles + 1)
        m.d.hbm += self.ticks.eq(self.ticks + 1)
        return m


def ring(count, *, latency_cycles=16, latencies=None):
    """``count`` stations in a ring, as dies and channels."""
    dies = [engine.Die(f"die{i}", {"top": model.build(Station(seed=1 + 0x9E37 * i))})
            for i in range(count)]
    channels = [engine.Channel(f"{i}->{(i + 1) % count}",
                               (f"die{i}", "top", "tx_valid", "tx_data"),
                               (f"die{(i + 1) % count}", "top", "rx_valid", "rx_data"),
                               latencies[i] if latencies else latency_cycles)
                for i in range(count)]
    return dies, channels


PROBE = {role: ("base", role) for role in ("tx_valid", "tx_data")}


def company(name, *, workers, whole=False, gate=None, memory_bytes=1 << 16, waves=False, held=()):
    """The die of an office: partitioned, or ``whole`` as one model; its outputs are probed.

    ``held``: inputs of the office that come through registers.
    """
    probe = engine.Device("probe", "probe", PROBE, memory_bytes=memory_bytes)
    if whole:
        return engine.Die(name, {"base": model.build(Company(workers=workers), waves=waves)},
                          devices=[probe])
    worker = model.build(Worker(), waves=waves)
    names = [f"pe{i}" for i in range(workers)]
    return engine.Die(
        name, {"base": model.build(Office(workers=workers), waves=waves, held=held),
               **{n: worker for n in names}},
        joins=[engine.Join("base", f"{n}__", n) for n in names],
        gates={n: gate for n in names if gate}, devices=[probe],
        lanes={n: (n, "trace") for n in names})
