"""Programs of host/collectives on rtl/net/engine.py: all ranks of a group on one engine.

Each rank is a subgraph; a queue pair of the bench's NIC is joined to itself, so that both ends of a
connection are the doorbell of the sender and the receiver.
"""
import random

import cocotb
import numpy as np

from cosim.golden import collectives as golden
from cosim.golden.formats import SPECS, pack
from cosim.golden.message_engine import Code
from host.collectives import ALGORITHMS, Binding, Place, plan
from host.isa import Format, ceil
from rtl.net.engine import MessageEngine
from testbenches import sim
from testbenches.collective_case import random_vector
from testbenches.net.engine_bench import DOORBELLS, LINE, Bench, Image

# Collective, algorithm, ranks, format, elements, in place.
CASES = [("all_reduce", name, n, form, count, count % 2 == 0)
         for name in ALGORITHMS["all_reduce"]
         for n, form, count in ((5, Format.BF16, 334), (7, Format.FP16, 75))]
CASES += [("all_reduce", name, 3, form, 2048 + 96, True) for name, form in (
    ("ring", Format.E4M3), ("direct", Format.E5M2))]
CASES += [("all_reduce", "ring", 2, Format.FP32, 1, True),
          ("reduce_scatter", "ring", 4, Format.BF16, 37, False),
          ("reduce_scatter", "direct", 4, Format.BF16, 37, True),
          ("all_gather", "ring", 5, Format.BF16, 21, False),
          ("all_gather", "doubling", 6, Format.FP16, 33, False),
          ("broadcast", "tree", 7, Format.FP32, 50, True),
          ("all_to_all", "direct", 4, Format.BF16, 19, True)]


class Group:
    """Buffers of all ranks in the memory of an image, and their program."""

    def __init__(self, image, rng, kind, algorithm, ranks, form, count, in_place):
        self.image, self.form, self.kind, self.ranks, self.at = image, form, kind, ranks, 0x40
        gathers, parts = kind == "all_gather", kind in ("reduce_scatter", "all_to_all")
        self.x = [random_vector(rng, form, count * ranks if parts else count)
                  for _ in range(ranks)]
        size = count * ranks if gathers or parts else count
        doorbell = {(a, b): DOORBELLS + LINE * n for n, (a, b) in enumerate(
            (a, b) for a in range(ranks) for b in range(ranks) if a != b)}
        lanes, self.outputs = [], []
        for rank, vector in enumerate(self.x):
            made = plan(kind, count=count, format=form, ranks=ranks, rank=rank, lanes=1,
                        algorithm=algorithm, in_place=in_place, piece_bytes=256,
                        check=ranks == 5)
            source = "output" if in_place and kind != "reduce_scatter" else "input"
            places = {**self.room("input", size if source == "input" else 0),
                      **self.room("output", size), "staging": Place(self.take(made.staging_bytes))}
            self.write(places, source, vector)
            entries = Binding(made, places, {
                (peer, 0): (doorbell[rank, peer], doorbell[peer, rank])
                for peer, _ in made.queue_pairs}).entries()
            lanes += [[line.tobytes() for line in lane] for lane in entries]
            chunk = in_place and kind == "reduce_scatter"
            self.outputs.append((places, "input" if chunk else "output", chunk * rank * count))
        self.program = image.program(*lanes)
        self.want = {
            "all_reduce": lambda: [golden.all_reduce(self.x, algorithm)] * ranks,
            "reduce_scatter": lambda: golden.reduce_scatter(self.x, algorithm),
            "all_gather": lambda: [golden.join(self.x)] * ranks,
            "broadcast": lambda: [self.x[0]] * ranks,
            "all_to_all": lambda: golden.all_to_all(self.x)}[kind]()

    def take(self, count):
        at, self.at = self.at, self.at + ceil(count, LINE) + LINE
        assert self.at <= 0x20000
        return at

    def room(self, name, count):
        if not count:
            return {}
        places = {name: Place(self.take(count * self.form.bits // 8))}
        if self.form.is_mx:
            places[name + " scales"] = Place(self.take(count // 32))
        return places

    def write(self, places, name, vector):
        self.image.memory.write(places[name].address, pack(vector.format, vector.codes))
        if vector.scales is not None:
            self.image.memory.write(places[name + " scales"].address, vector.scales)

    def compare(self, load):
        """All elements and scales of all ranks."""
        for rank, ((places, name, first), want) in enumerate(zip(self.outputs, self.want,
                                                                 strict=True)):
            codes = pack(want.format, want.codes).tobytes()
            at = places[name].address + first * SPECS[want.format].bits // 8
            assert bytes(load(at, len(codes))) == codes, f"rank {rank}"
            if want.scales is not None:
                scales = load(places[name + " scales"].address, len(want.scales))
                assert bytes(scales) == want.scales.tobytes(), f"scales of rank {rank}"


@cocotb.test()
@cocotb.parametrize(case=range(len(CASES)))
async def collectives_have_golden_bits(dut, case):
    rng = np.random.default_rng(random.getrandbits(32))
    bench, image = Bench(dut), Image(rng)
    group = Group(image, rng, *CASES[case])
    await bench.start()
    image.copy_to(bench.memory)
    report = await bench.run(group.program, watchdog=8000)
    assert report.code == Code.OK, report
    group.compare(bench.memory.load)
    assert not any(bench.transfers.sends.values()) and not any(bench.transfers.receives.values())


def test_engine_collectives(tmp_path):
    """On Verilator alone: the programs are long, and the engine's own tests run on both."""
    sim.run(MessageEngine(), test_module=__name__, build_dir=tmp_path)
