"""Tests of rtl/pe/element.py: programs against the golden model of a PE, on random memory."""
import random

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from cosim.golden.machine import Machine
from host.isa import Binary, Code, Format, Function, Op, Source1, Unit, command
from host.program import Program, use
from rtl.pe.element import ProcessingElement
from testbenches import sim
from testbenches.pe.memory_model import ERROR_ADDRESS, ERROR_POISON, MemoryModel

LINES, ROWS, LANES = 256, 4, 3
PROGRAM, INPUT, OUTPUT = 0x8000, 0x10000, 0x40000


class Lines:
    """Plain memory for the golden machine, a copy of what the memory model holds."""

    def __init__(self, lines):
        self.lines = dict(lines)

    def read(self, address, count):
        return np.frombuffer(bytes(self.lines.get(a // 64, 0) >> 8 * (a % 64) & 0xFF
                                   for a in range(address, address + count)), np.uint8)

    def write(self, address, data):
        for offset, byte in enumerate(bytes(data)):
            line, at = divmod(address + offset, 64)
            self.lines[line] = self.lines.get(line, 0) & ~(0xFF << 8 * at) | byte << 8 * at


class Bench:
    """A PE with its memory; runs programs."""

    def __init__(self, dut, seed):
        self.dut = dut
        self.rng = random.Random(seed)
        self.memory = MemoryModel(dut, self.rng)
        dut._log.info("seed %d", seed)

    async def start(self):
        dut = self.dut
        dut.go.value = 1        # whatever waits may start
        await sim.reset(dut, dut.drop, dut.launch__valid, dut.launch__payload, dut.report__ready,
                        dut.proceed, dut.abort, dut.request__ready, dut.response__valid,
                        dut.response__payload, dut.access__valid, dut.access__payload,
                        dut.access_response__ready)
        self.task = cocotb.start_soon(self.memory.run())

    def stop(self):
        self.task.cancel()

    def fill(self, address, count):
        self.memory.store(address, self.rng.randbytes(count))

    async def launch(self, words, *, watchdog=3000):
        self.memory.store(PROGRAM, np.asarray(words).astype("<u4").tobytes())
        self.dut.launch__valid.value = 1
        self.dut.launch__payload.value = PROGRAM | watchdog << 48
        await RisingEdge(self.dut.clk)
        while not self.dut.launch__ready.value:
            await RisingEdge(self.dut.clk)
        self.dut.launch__valid.value = 0

    async def report(self, *, patience=8000, address=0):
        """(code, tag, unit, field); the report names ``address``."""
        dut = self.dut
        dut.report__ready.value = 1
        for _ in range(patience):
            await RisingEdge(dut.clk)
            if dut.report__valid.value:
                value = int(dut.report__payload.value)
                dut.report__ready.value = 0
                assert value >> 36 == address
                return value & 0xFF, value >> 8 & 0xFFFF, value >> 24 & 15, value >> 28 & 0xFF
        raise AssertionError("no report")

    async def check(self, program):
        """Run a program on the PE and on the golden machine; compare all of memory."""
        words = program.words()
        golden = Lines(self.memory.lines)
        golden.write(PROGRAM, words.astype("<u4").tobytes())
        list(Machine(golden, lines=LINES).run(PROGRAM))
        await self.launch(words)
        assert await self.report() == (Code.OK, 0, 0, 0)
        for line in sorted({*golden.lines, *self.memory.lines}):
            got, want = self.memory.lines.get(line, 0), golden.lines.get(line, 0)
            assert got == want, f"line {64 * line:#x}: {got:#x}, not {want:#x}"

    async def counters(self, line, *, write=0):
        """Read a line of the register window: (error, 16 words)."""
        dut = self.dut
        tag = self.rng.getrandbits(8)
        dut.access__payload.value = line << 6 | 0xAB << 16 | tag << 48 | write << 56
        dut.access__valid.value = dut.access_response__ready.value = 1
        await RisingEdge(dut.clk)
        while not dut.access__ready.value:
            await RisingEdge(dut.clk)
        dut.access__valid.value = 0
        while not dut.access_response__valid.value:
            await RisingEdge(dut.clk)
        value = int(dut.access_response__payload.value)
        dut.access_response__ready.value = 0
        assert value & 0xFF == tag and value >> 8 & 1 == write
        return value >> 9 & 3, [value >> 11 + 32 * i & 0xFFFFFFFF for i in range(16)]


def product(bench, *, tiles, blocks, rows, columns):
    """A program of several products that share the rows of B, and its inputs."""
    program = Program(local_lines=LINES)
    k_lines, scale = -(-blocks * 16 // 64), 1 << (blocks - 1).bit_length()
    bytes_a, bytes_b = blocks * 16, columns * blocks * 16
    scale_lines = -(-columns * scale // 64)
    buffers = [program.buffer(n) for n in (2 * rows * k_lines, 2, columns * k_lines, scale_lines,
                                           2 * columns)]
    a, a_scales, b, b_scales, out = buffers
    bench.fill(INPUT, 8192)
    scales = bytes(bench.rng.randint(100, 150) for _ in range(4096))
    bench.memory.store(INPUT + 8192, scales)
    assert bytes_b <= 4096 and tiles * rows * bytes_a <= 4096
    program.dma_in(use(b, wait=columns * k_lines, release=columns * k_lines), INPUT + 4096 + 5,
                   rows=columns, row_bytes=bytes_a, remote_stride=bytes_a + 3,
                   local_stride=64 * k_lines)
    program.dma_in(use(b_scales, wait=scale_lines, release=scale_lines), INPUT + 8192,
                   row_bytes=columns * scale)
    for t in range(tiles):
        count = rows * k_lines
        program.dma_in(use(a, wait=count, release=count), INPUT + t * 1024, rows=rows,
                       row_bytes=bytes_a, remote_stride=bytes_a, local_stride=64 * k_lines)
        program.dma_in(use(a_scales, wait=1, release=1), INPUT + 9000 + 64 * t,
                       row_bytes=rows * scale)
        program.load_a(use(a, wait=count, release=count), use(a_scales, wait=1, release=1),
                       form=Format.E2M1, rows=rows, blocks=blocks, stride=k_lines,
                       scale_stride=scale)
        program.dot(use(b, wait=columns * k_lines), use(b_scales, wait=scale_lines),
                    use(out, wait=columns, release=0 if t % 2 == 0 and t + 1 < tiles else columns),
                    a=Format.E2M1, b=Format.E2M1, columns=columns, blocks=blocks, stride=k_lines,
                    out_stride=1, scale_stride=scale, accumulate=t % 2 == 1)
        if t % 2 == 1 or t + 1 == tiles:
            program.dma_out(use(out, wait=columns, release=columns), OUTPUT + t * 4096 + 12,
                            rows=columns, row_bytes=4 * rows, remote_stride=4 * rows + 7,
                            local_stride=64)
    return program


@cocotb.test()
@cocotb.parametrize(shape=[(4, 3, 4, 7), (3, 1, 3, 12), (2, 9, 2, 5)], seed=[1, 2])
async def products_have_the_bits_of_the_golden_model(dut, shape, seed):
    """DMA, LOAD_A, DOT with and without accumulation, DMA; units overlap, memory is random."""
    tiles, blocks, rows, columns = shape
    bench = Bench(dut, seed)
    await bench.start()
    await bench.check(product(bench, tiles=tiles, blocks=blocks, rows=rows, columns=columns))
    bench.stop()


@cocotb.test()
@cocotb.parametrize(seed=[3, 4])
async def moves_have_the_bits_of_the_golden_model(dut, seed):
    """GATHER with indices from memory, TRANSPOSE of its rows, all bytes back to memory."""
    bench = Bench(dut, seed)
    rng = bench.rng
    await bench.start()
    for size in (1, 2, 4):
        program = Program(local_lines=LINES)
        rows, columns = rng.randint(1, 20), rng.randint(1, 24)
        stride = -(-columns * size // 64) * 64
        back = -(-rows * size // 64) * 64
        index, data = program.buffer(4), program.buffer(rows * stride // 64)
        turned = program.buffer(columns * back // 64)
        bench.fill(INPUT, 8192)
        bench.memory.store(INPUT + 0x3000, np.array([rng.randrange(40) for _ in range(rows)],
                                                    "<u4").tobytes())
        program.dma_in(use(index, wait=4, release=4), INPUT + 0x3000, row_bytes=4 * rows)
        need = rows * stride // 64
        program.gather(use(data, wait=need, release=need), use(index, wait=4, release=4),
                       INPUT + 9, rows=rows, row_bytes=columns * size,
                       remote_stride=columns * size + 1, local_stride=stride)
        program.transpose(use(data, wait=need, release=need),
                          use(turned, wait=columns * back // 64, release=columns * back // 64),
                          rows=rows, columns=columns, element_bytes=size, src_stride=stride,
                          dst_stride=back)
        program.dma_out(use(turned, wait=columns * back // 64, release=columns * back // 64),
                        OUTPUT + 1, rows=columns, row_bytes=rows * size,
                        remote_stride=rows * size, local_stride=back)
        await bench.check(program)
    bench.stop()


@cocotb.test()
@cocotb.parametrize(seed=[5, 6])
async def quantise_multiply_activate_has_the_bits_of_the_golden_model(dut, seed):
    """FP32 rows are quantised, multiplied with MX4 weights, biased, put through GELU; in chunks."""
    bench = Bench(dut, seed)
    rng = np.random.default_rng(seed)
    await bench.start()
    chunks, rows, columns = 3, 5, 64
    program = Program(local_lines=LINES)
    x, xq, xs = program.buffer(2 * rows * 4), program.buffer(2 * rows), program.buffer(2)
    w, ws, bias = program.buffer(ROWS), program.buffer(1), program.buffer(1)
    y, z = program.buffer(2 * rows), program.buffer(2 * rows)
    values = rng.normal(size=chunks * rows * columns + 16).astype("<f4")
    bench.memory.store(INPUT, values.tobytes())
    bench.fill(INPUT + 0x8000, ROWS * 32)
    bench.memory.store(INPUT + 0x9000, bytes(rng.integers(120, 132, 64, dtype=np.uint8)))
    program.dma_in(use(w, wait=ROWS, release=ROWS), INPUT + 0x8000, rows=ROWS, row_bytes=32,
                   remote_stride=32, local_stride=64)
    program.dma_in(use(ws, wait=1, release=1), INPUT + 0x9000, row_bytes=64)
    program.dma_in(use(bias, wait=1, release=1), INPUT, row_bytes=64)
    for i in range(chunks):
        program.dma_in(use(x, wait=4 * rows, release=4 * rows), INPUT + 64 + i * rows * 256,
                       row_bytes=rows * 256)
        program.simd(use(x, wait=4 * rows, release=4 * rows), use(xq, wait=rows, release=rows),
                     rows=rows, columns=columns, form=Format.E2M1, seed=seed if i else None,
                     scales=use(xs, wait=1, release=1))
        program.load_a(use(w, wait=ROWS), use(ws, wait=1), form=Format.E2M1, rows=ROWS, blocks=2,
                       stride=1, scale_stride=2)
        program.dot(use(xq, wait=rows, release=rows), use(xs, wait=1, release=1),
                    use(y, wait=rows, release=rows), a=Format.E2M1, b=Format.E2M1, columns=rows,
                    blocks=2, stride=1, out_stride=1, scale_stride=2)
        program.simd(use(y, wait=rows, release=rows), use(z, wait=rows, release=rows), rows=rows,
                     columns=ROWS, src1=use(bias, wait=1), mode=Source1.ROW, op=Binary.ADD,
                     function=Function.GELU, form=Format.BF16)
        program.dma_out(use(z, wait=rows, release=rows), OUTPUT + i * 512, rows=rows,
                        row_bytes=2 * ROWS, remote_stride=2 * ROWS, local_stride=64)
    await bench.check(program)
    assert any(bench.memory.load(OUTPUT, rows * 2 * ROWS))
    bench.stop()


@cocotb.test()
@cocotb.parametrize(case=["address", "poison", "field", "small", "missing", "starved", "fetch"])
async def error_ends_the_program_and_the_next_one_runs(dut, case):
    """Each documented error, with other work under way; then a product is right again."""
    bench = Bench(dut, 7)
    await bench.start()
    program = product(bench, tiles=4, blocks=2, rows=4, columns=6)
    words = program.words()
    tag = len(words) // 2
    at = next(i for i in range(tag, len(words)) if words[i][0] & 0xFF == Op.DMA_IN)
    want, address = None, 0
    if case in ("address", "poison"):
        words[at][4:6] = 0x7_0000, 0
        kind = ERROR_ADDRESS if case == "address" else ERROR_POISON
        bench.memory.errors[0x7_0000 // 64] = kind
        address = 0x7_0000
        code = Code.BAD_ADDRESS if case == "address" else Code.POISON
        want = (code, at, Unit.DMA_IN)
    elif case == "field":
        words[at][6] = 0
        want = (Code.BAD_FIELD, at, Unit.DMA_IN, 6)
    elif case == "small":
        words[at][3] = 300
        want = (Code.CB_TOO_SMALL, at, Unit.DMA_IN, int(words[at][2]) & 31)
    elif case == "missing":
        words[at] = command(0x99, tag=at)
        want = (Code.BAD_COMMAND, at, 0, 0)
    elif case == "starved":
        at = next(i for i in range(len(words)) if words[i][0] & 0xFF == Op.LOAD_A)
        words[at - 1] = command(Op.NOP)
        words[at + 1] = command(Op.END)
        want = (Code.WATCHDOG, at, Unit.A_LOADER, int(words[at][4]) & 31)
    else:
        bench.memory.errors[PROGRAM // 64 + at] = ERROR_POISON
        address = PROGRAM + 64 * at
        want = (Code.POISON, 0, 0, 0)
    await bench.launch(words, watchdog=500)
    got = await bench.report(address=address)
    assert got[:len(want)] == want
    bench.memory.errors.clear()
    await bench.check(product(bench, tiles=2, blocks=3, rows=4, columns=5))
    bench.stop()


@cocotb.test()
async def abort_at_any_time_leaves_nothing_behind(dut):
    """After each of many aborts no answer is outstanding, and the next program is right."""
    bench = Bench(dut, 8)
    await bench.start()
    for delay in (1, 20, 45, 77, 120, 200):
        program = product(bench, tiles=4, blocks=2, rows=4, columns=6)
        await bench.launch(program.words())
        await ClockCycles(dut.clk, delay)
        dut.abort.value = 1
        await RisingEdge(dut.clk)
        dut.abort.value = 0
        code, _, unit, field = await bench.report()
        assert (code, unit, field) == (Code.ABORTED, 0, 0)
        writes = sum(w for _, _, w in bench.memory.requests)
        await ClockCycles(dut.clk, 60)
        assert writes == sum(w for _, _, w in bench.memory.requests), "wrote after its report"
        assert dut.idle.value
        await bench.check(product(bench, tiles=2, blocks=1, rows=3, columns=4))
    bench.stop()


@cocotb.test()
async def barrier_holds_back_what_follows(dut):
    bench = Bench(dut, 9)
    await bench.start()
    program = Program(local_lines=LINES)
    one = program.buffer(2)
    bench.fill(INPUT, 128)
    program.dma_in(use(one, wait=1, release=1), INPUT, row_bytes=64)
    program.phase(barrier=True)
    two = program.buffer(2)
    program.dma_in(use(two, wait=2, release=2), INPUT, row_bytes=128)
    program.dma_out(use(two, wait=2, release=2), OUTPUT, row_bytes=128)
    await bench.launch(program.words(), watchdog=100)
    arrived = 0
    for _ in range(500):
        await RisingEdge(dut.clk)
        arrived += int(dut.arrive.value)
    assert arrived == 1 and not dut.report__valid.value and not dut.idle.value
    assert not any(w for _, _, w in bench.memory.requests)
    dut.proceed.value = 1
    await RisingEdge(dut.clk)
    dut.proceed.value = 0
    assert (await bench.report())[0] == Code.OK
    assert bench.memory.load(OUTPUT, 128) == bench.memory.load(INPUT, 128)
    bench.stop()


@cocotb.test()
async def counters_add_up_and_the_trace_agrees(dut):
    """Busy, starved and blocked cycles of every unit are those that the trace showed."""
    bench = Bench(dut, 10)
    await bench.start()
    program = product(bench, tiles=4, blocks=2, rows=4, columns=6)
    await bench.launch(program.words())
    shown = np.zeros((len(Unit), 4), int)
    dut.report__ready.value = 1
    for _ in range(3000):
        await RisingEdge(dut.clk)
        value = int(dut.states.value)
        for unit in range(len(Unit)):
            shown[unit][value >> 2 * unit & 3] += 1
        if dut.idle.value:
            break
    ops = [int(w[0]) & 0xFF for w in program.words()]
    ended = [len(ops), ops.count(Op.DMA_IN), ops.count(Op.DMA_OUT), ops.count(Op.LOAD_A),
             ops.count(Op.DOT), ops.count(Op.DOT), 0, 0, 0]
    for unit in range(len(Unit)):
        error, words = await bench.counters(unit)
        assert error == 0 and words[:4] == [*shown[unit][1:], ended[unit]], f"unit {unit}"
    assert (await bench.counters(Unit.DOT))[1][4] == 4 * 2 * 2, "beats: blocks x ceil(6 / 3)"
    assert (await bench.counters(len(Unit)))[0] == ERROR_ADDRESS
    assert (await bench.counters(1023))[0] == ERROR_ADDRESS
    assert (await bench.counters(1, write=1))[0] == ERROR_ADDRESS
    bench.stop()


@cocotb.test()
async def idle_time_leaves_no_trace(dut):
    """However long it was idle, a PE runs the next program in the same way cycle by cycle."""
    seen = []
    for gap in (0, 1, 2, 3, 7):
        bench = Bench(dut, 11)
        await bench.start()
        bench.memory.latency, bench.memory.rate = (6, 6), 1.1
        await bench.launch(product(bench, tiles=3, blocks=2, rows=4, columns=6).words())
        await bench.report()
        while not dut.idle.value:
            await RisingEdge(dut.clk)
        await ClockCycles(dut.clk, 1 + gap)
        assert dut.idle.value and dut.launch__ready.value
        program = product(bench, tiles=4, blocks=2, rows=4, columns=7)
        cocotb.start_soon(bench.launch(program.words()))
        trace = []
        while not dut.report__valid.value and len(trace) < 4000:
            await RisingEdge(dut.clk)
            trace.append((int(dut.states.value), int(dut.request__valid.value)))
        seen.append(trace)
        bench.stop()
    assert all(trace == seen[0] for trace in seen) and len(seen[0]) > 100


@sim.on_simulators
def test_element(tmp_path, simulator):
    element = ProcessingElement(lines=LINES, banks=4, rows=ROWS, lanes=LANES)
    sim.run(element, test_module=__name__, build_dir=tmp_path, simulator=simulator)
