"""Packages without time with message engines: launches of programs run on the golden model."""
import numpy as np

from cosim.golden.machine import Refused
from cosim.golden.message_system import MessageSystem
from host.driver import Device
from host.isa import LINE, Region, Submission, address
from host.network_isa import (
    ENTRY,
    MESSAGE_ENGINE,
    NETWORK_REGION,
    NIC_QUEUE_PAIRS,
    NIC_REGIONS,
    NIC_SEND,
    QUEUE_PAIR,
    REGION,
    QpState,
    completion_port,
    doorbells,
)
from testbenches.host_fake import Configuration, FakePackage

CONFIGURATION = Configuration(dies=2, pes=6, sram_bytes=1 << 21, hbm_bytes=1 << 22)
WINDOW = (1 << 20) - 1


class World:
    """``ranks`` packages; ``devices`` are their drivers. NICs are told apart by window and MAC."""

    def __init__(self, ranks, *, seed=0, configuration=CONFIGURATION):
        self.model = MessageSystem(seed=seed, frame_bytes=512)
        self.scale_out = {}
        self.contexts, self.macs, self.reports, self.joined = {}, {}, {}, {}
        self.stopped = set()
        self.packages = [Package(self, rank, configuration) for rank in range(ranks)]
        self.devices = [Device(package) for package in self.packages]

    def context(self, node, window, number, made):
        """A queue pair is written; two that name each other are joined."""
        key = node.name, window, number
        for end in self.joined.pop(key, ()):
            for bell in end.bells_of:
                end.node.bells.pop(bell, None)
            self.joined.pop((end.node.name, end.window, end.number), None)
        self.contexts.pop(key, None)
        if made["state"] != QpState.READY:
            return
        assert made["completions"] == completion_port(window >> 44)
        mac = self.macs[node.name, window]
        self.contexts[key] = mac, made, node
        for (_, there, theirs), (peer_mac, other, peer) in self.contexts.items():
            if ((peer_mac, theirs) == (made["peer_mac"], made["peer_qp"])
                    and (other["peer_mac"], other["peer_qp"]) == (mac, number)):
                bells = [doorbells(window, number), doorbells(there, theirs)]
                ends = self.model.join(node, peer, *bells, numbers=(number, theirs),
                                       domain=int(made["domain"]))
                for end, bell, at in zip(ends, bells, (window, there), strict=True):
                    end.bells_of, end.window = bell, at
                    self.joined[end.node.name, at, end.number] = ends
                return

    def run(self, package, node, subgraphs):
        """Start a program, let all others come to theirs, and run."""
        if package.rank in self.stopped:
            subgraphs = [subgraph[:len(subgraph) // 2] for subgraph in subgraphs]
        node.start(subgraphs)
        self.reports.pop(node.name, None)
        for other in self.packages:
            if not other.inside and node.name not in self.reports:
                other.come()
        if node.name not in self.reports:
            self.reports |= self.model.run()
        return self.reports.pop(node.name)


class Package(FakePackage):
    """A package with a message engine, bit ``pes``; PEs of the same packet run before it."""

    def __init__(self, world, rank, configuration):
        super().__init__(configuration)
        self.world, self.rank, self.inside, self.tag = world, rank, False, 0
        self.called = False
        parts = self.device_memory.parts
        self.nodes = {die: world.model.node(f"rank {rank} die {die}", {
            address(die, region): parts[die, region]
            for region in (Region.SRAM, Region.HBM, Region.CONTROL)})
            for die in range(configuration.dies)}
        write = self.device_memory.write

        def routed(at, data):
            if at >> 40 & 15 == NETWORK_REGION:
                self.write_nic(at, data)
            else:
                write(at, data)

        self.device_memory.write = routed

    def write_nic(self, at, data):
        """A line for a NIC."""
        assert len(data) == LINE and at % LINE == 0
        node, window, offset = self.nodes[at >> 44], at & ~WINDOW, at & WINDOW
        line = np.asarray(data, np.uint8).copy()
        if offset == 0:
            self.world.macs[node.name, window] = int(line[:8].view("<u8")[0])
        elif offset == LINE:
            self.world.scale_out[node.name, window] = int(line[:8].view("<u8")[0])
        elif NIC_REGIONS <= offset < NIC_SEND:
            made = line.view(REGION)[0]
            assert made["key"] & 63 == (offset - NIC_REGIONS) // LINE
            node.register(int(made["key"]), int(made["base"]), int(made["length"]),
                          domain=int(made["domain"]))
        elif NIC_QUEUE_PAIRS <= offset < NIC_REGIONS:
            self.world.context(node, window, (offset - NIC_QUEUE_PAIRS) // LINE,
                               line.view(QUEUE_PAIR)[0])
        else:
            raise AssertionError(f"nobody writes {at:#x}")

    def run_until_interrupt(self, cycles):
        if self.inside:
            return
        self.inside = True
        try:
            super().run_until_interrupt(cycles)
        finally:
            self.inside = False

    def come(self):
        """Run until the next program of a message engine has ended; others wait for it."""
        self.called = True
        try:
            self.run_until_interrupt(0)
        finally:
            self.called = self.paused = False

    def _launch(self, w):
        pes, mask = self.configuration.pes, w[8] >> 16 | w[10] << 16 | w[11] << 48
        if mask != 1 << pes:    # the engine's bit is in the first word of the mask
            super()._launch([*w[:8], w[8] & ~(1 << 16 + pes), *w[9:]])
        if not mask >> pes & 1:
            return
        base, die = w[2] | w[3] << 32, w[8] & 255
        read = self.device_memory.read
        entry = int(read(base + LINE * (pes // 16), LINE).view("<u4")[pes % 16])
        words = read(base + LINE * entry, LINE).view("<u8")
        subgraphs = []
        for word in words[1:1 + int(words[0])].tolist():
            at, count = word & (1 << 48) - 1, word >> 48
            subgraphs.append(read(at, LINE * count).copy().view(ENTRY))
        self.paused = self.called
        report = self.world.run(self, self.nodes[die], subgraphs)
        if report.code:
            self.tag = report.subgraph << 12 | report.entry & 0xFFF
            raise Refused(report.code, report.status, report.text)

    def _execute(self, w):
        done = self.done
        launch = w[0] & 255 == Submission.LAUNCH
        super()._execute(w)
        at = self.registers["completion_base_lo"] + 32 * (
            done % (1 << self.registers["completion_size"]))
        words = self.host_memory[at:at + 32].view("<u4")
        if launch and words[0] >> 16 & 255:
            words[1] = words[1] & 0xFFF0_0000 | MESSAGE_ENGINE << 16 | self.tag
