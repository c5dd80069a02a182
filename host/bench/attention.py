"""Fused attention: prefill on one PE and on the package, accuracy, and decoding from a KV cache."""
from dataclasses import dataclass, field, replace

import numpy as np

from cosim.golden import attention as golden
from cosim.golden import formats as number_formats
from cosim.golden.functions import Function, worst_error
from host import counters
from host.driver import Device
from host.isa import ROWS, Format, Unit
from host.kernels.flash import KEYS, Head, Mask, flash, sink_row
from host.kernels.matmul import split, upper
from host.kernels.split import flash_split
from host.outcome import Outcome
from host.tensor import Tensor, pack
from host.transport import open_package

MACS = {Format.E4M3: 512, Format.BF16: 256, Format.FP16: 256}  # of a PE and cycle, by format
FABRIC_BYTES = 64       # of the fabric interface of a PE, a cycle one way


@dataclass(frozen=True)
class Job:
    """Attention of one head: random queries, keys and values of one format."""

    queries: int = 1024
    keys: int = 1024
    head: int = 128
    form: Format = Format.E4M3
    p: Format = Format.E4M3
    mask: Mask = field(default_factory=Mask)
    seed: int = 1
    outliers: float = 0.0       # share of values that come from N(0, 100)
    cap: float | None = None    # soft cap of the logits
    sinks: tuple = ()           # logits of the heads that share the keys; () for no sinks

    def values(self):
        """Queries, keys and values in FP32."""
        rng = np.random.default_rng(self.seed)
        parts = []
        for rows in (self.queries, self.keys, self.keys):
            x = rng.standard_normal((rows, self.head))
            far = rng.random(x.shape) < self.outliers
            x = np.where(far, rng.standard_normal(x.shape) * 10, x)     # variance 100
            parts.append(x.astype(np.float32))
        return parts

    def macs(self):
        """Useful multiplications: two products over the keys that each row sees."""
        rows = np.arange(self.queries)
        low, high = np.array([self.mask.seen(int(r)) for r in rows]).T
        seen = np.minimum(high, self.keys - 1) - np.maximum(low, 0) + 1
        return 2 * self.head * int(np.maximum(seen, 0).sum())


@dataclass
class Packed:
    """A job's operands as bytes."""

    q: object
    k: object
    vt: object


def pages(v):
    """V^T by pages of 128 keys: [pages x head, 128], keys past the end zero."""
    keys, head = v.shape
    padded = np.zeros((upper(keys, KEYS) * KEYS, head), np.float32)
    padded[:keys] = v
    return padded.reshape(-1, KEYS, head).transpose(0, 2, 1).reshape(-1, KEYS)


def packed(job):
    q, k, v = job.values()
    return Packed(pack(q, job.form), pack(k, job.form), pack(pages(v), job.form))


def expected(job, operands, tiles=None):
    """The golden model's result: FP32 patterns [queries, head]."""
    tiles = range(upper(job.queries, ROWS)) if tiles is None else tiles
    q, k, vt = (p.operand for p in (operands.q, operands.k, operands.vt))
    out = np.zeros((len(tiles) * ROWS, job.head), np.uint32)
    spans, low, high = [], [], []
    for row in (r for t in tiles for r in range(t * ROWS, min(t * ROWS + ROWS, job.queries))):
        tile = row - row % ROWS
        spans.append(job.mask.span(tile, min(tile + ROWS, job.queries), job.keys))
        low.append(job.mask.seen(row)[0])
        high.append(job.mask.seen(row)[1])
    spans, low, high = np.array(spans), np.array(low), np.array(high)
    for span in np.unique(spans, axis=0):      # rows that see the same blocks go together
        mine = np.flatnonzero((spans == span).all(1))
        rows = mine + tiles[0] * ROWS
        start = span[0] // KEYS * KEYS
        cuts = [(at, min(at + KEYS, span[1])) for at in range(start, span[1], KEYS)]
        if not cuts:
            continue
        keys = [part(k, slice(a, b)) for a, b in cuts]
        values = [page(vt, a // KEYS, job.head, golden.padded_keys(b - a, vt.format))
                  for a, b in cuts]
        out[mine] = golden.attention(
            part(q, rows), keys, values, scale=job.head ** -0.5, low=low[mine] - start,
            high=high[mine] - start, format=number_formats.Format(job.p),
            lanes=2 if job.queries <= ROWS // 2 else 1, cap=job.cap,
            sinks=np.array(job.sinks)[rows % len(job.sinks)] if job.sinks else None)
    return out[:len(low)]


def merged(job, operands, pes):
    """The golden model's result, the keys shared out to ``pes`` PEs: patterns [queries, head]."""
    q, k, vt = (p.operand for p in (operands.q, operands.k, operands.vt))
    blocks = upper(job.keys, 128)
    low, high = np.array([job.mask.seen(row) for row in range(job.queries)]).T
    out = np.zeros((job.queries, job.head), np.uint32)
    for first in range(0, job.queries, 16):
        rows = np.arange(first, min(first + 16, job.queries))
        states = []
        for a, b in split(blocks, min(pes, blocks)):
            cuts = [(at * 128, min(at * 128 + 128, job.keys)) for at in range(a, b)]
            states.append(golden.attend(
                part(q, rows), [part(k, slice(*cut)) for cut in cuts],
                [page(vt, cut[0] // 128, job.head,
                            golden.padded_keys(cut[1] - cut[0], vt.format)) for cut in cuts],
                scale=job.head ** -0.5, low=low[rows] - a * 128, high=high[rows] - a * 128,
                format=number_formats.Format(job.p), lanes=2 if job.queries <= 8 else 1,
                cap=job.cap, sinks=np.array(job.sinks)[rows % len(job.sinks)]
                if job.sinks and not a else None))
        out[rows] = golden.merge(states)
    return out


def part(operand, rows):
    scales = None if operand.scales is None else operand.scales[rows]
    return replace(operand, codes=operand.codes[rows], scales=scales)


def page(vt, number, head, keys):
    """A page of V^T as the operand of a WEIGH, cut to ``keys`` keys."""
    rows = part(vt, slice(number * head, number * head + head))
    scales = None if rows.scales is None else rows.scales[:, :upper(keys, 32)]
    return replace(rows, codes=rows.codes[:, :keys], scales=scales)


def place(device, die, job, operands):
    """Put a job's operands into SRAM; gives the head."""
    q, k, vt = (device.put(p, die, stream=die) for p in (operands.q, operands.k, operands.vt))
    out = device.empty(die, upper(job.queries, ROWS) * job.head, ROWS, Format.FP32)
    return Head(q, k, vt, out)


def place_sinks(device, die, job):
    """Put a job's sinks into SRAM, if it has some."""
    return device.put(sink_row(job.sinks), die, stream=die) if job.sinks else None


def rows_of(job, raw, tiles):
    """O [queries, head] from the tiles of O^T that came back."""
    count = len(tiles)
    if job.queries <= ROWS // 2:
        pairs = raw[:job.head // 2].reshape(job.head, ROWS // 2)
        return np.ascontiguousarray(pairs.T[:job.queries])
    lines = raw.reshape(count, job.head, ROWS).transpose(0, 2, 1).reshape(-1, job.head)
    return np.ascontiguousarray(lines[:job.queries - tiles[0] * ROWS])


@dataclass
class Run:
    """What a run gave: cycles of the longest program, elements compared and equal."""

    cycles: int
    compared: int
    equal: int
    kv_bytes: int


def execute(device, job, *, heads=1, dies=(0,), tiles=None):
    """Run ``heads`` heads on each die, a PE each, with equal operands; compare every element."""
    operands = packed(job)
    tiles = range(upper(job.queries, ROWS)) if tiles is None else tiles
    placed = {die: [place(device, die, job, operands) for _ in range(heads)] for die in dies}
    sinks = {die: place_sinks(device, die, job) for die in dies}
    device.synchronize()
    prepared = [device.prepare(die, {pe: flash(h, p=job.p, mask=job.mask, tiles=tiles, cap=job.cap,
                                               sinks=sinks[die])
                                     for pe, h in enumerate(placed[die])}, stream=die)
                for die in dies]
    device.synchronize()
    with device.batch():
        events = [device.start(p, stream=die) for die, p in zip(dies, prepared, strict=True)]
    for event in events:
        event.wait(100_000_000)
    cycles = max(int(counters.read(device, die, pe)[Unit.COMMAND_PROCESSOR][4])
                 for die in dies for pe in range(heads))
    wanted = expected(job, operands, tiles)
    compared = equal = 0
    for die in dies:
        for head in placed[die]:
            first = tiles[0] * job.head
            out = Tensor(head.out.row(first), len(tiles) * job.head, ROWS, Format.FP32)
            got = rows_of(job, device.get(out, stream=die), tiles)
            compared += wanted.size
            equal += int((got.view(np.uint32) == wanted).sum())
            for tensor in (head.q, head.k, head.vt, head.out):
                device.release(tensor)
        if sinks[die]:
            device.release(sinks[die])
    kv = sum(p.elements.size + (0 if p.scales is None else p.scales.size)
             for p in (operands.k, operands.vt))
    return Run(cycles, compared, equal, kv)


# --- accuracy, by the golden model that the hardware equals bit for bit

def exact(job, operands):
    """Attention in float64 of the numbers that the operands hold."""
    def values(p):
        x = number_formats.decode(p.operand.format, p.operand.codes)
        if p.scales is not None:
            x = x * np.repeat(number_formats.scale_value(p.operand.scales), 32, 1)
        return x
    q, k = values(operands.q), values(operands.k)
    v = values(operands.vt).reshape(-1, job.head, KEYS).transpose(0, 2, 1).reshape(-1, job.head)
    return softmax64(q, k, v[:job.keys], job.head ** -0.5)


def softmax64(q, k, v, scale):
    scores = q @ k.T * scale
    p = np.exp(scores - scores.max(1, keepdims=True))
    return p @ v / p.sum(1, keepdims=True)


def flash32(job, operands):
    """FlashAttention in FP32 throughout, by blocks of 128 keys: what others would get."""
    q, k, v = job.values()
    q, k, v = (pack(x, job.form).operand for x in (q, k, v))
    q, k, v = (number_formats.decode(x.format, x.codes).astype(np.float32) for x in (q, k, v))
    top = np.full((len(q), 1), -np.inf, np.float32)
    total, out = np.zeros_like(top), np.zeros_like(q)
    for at in range(0, job.keys, KEYS):
        scores = (q @ k[at:at + KEYS].T) * np.float32(job.head ** -0.5)
        new = np.maximum(top, scores.max(1, keepdims=True))
        p, factor = np.exp(scores - new), np.exp(top - new)
        total = total * factor + p.sum(1, keepdims=True)
        out, top = out * factor + p @ v[at:at + KEYS], new
    return out / total


def row_sum_error(job, operands):
    """Largest deviation from 1 of a row's sum of P, as it is rounded, times 1 / l."""
    q, k = operands.q.operand, operands.k.operand
    state, total = golden.State.start(job.queries), np.zeros(job.queries)
    form = number_formats.Format(job.p)
    for at in range(0, job.keys, KEYS):
        keys = part(k, slice(at, at + KEYS))
        scores = np.ascontiguousarray(golden.bits(golden.matmul(q, keys)).T)
        codes = golden.softmax_block(
            scores, np.ones(scores.shape, bool), state, format=form,
            scale=np.float32(job.head ** -0.5 * golden.LOG2_E))
        total = (total * state.factor.view(np.float32)
                 + number_formats.decode(form, codes).sum(1))
    inverse = golden.inverse(state).view(np.float32).astype(np.float64)
    return float(np.abs(total * inverse - 1).max())


def accuracy(metrics):
    """Errors against float64, by format of P; inputs rounded to BF16."""
    for name, outliers in (("max_abs_err", 0.0), ("outlier_max_abs_err", 1e-3)):
        for suffix, p in (("", Format.FP16), ("_bf16_p", Format.BF16)):
            job = Job(form=Format.BF16, p=p, outliers=outliers)
            operands = packed(job)
            wanted = exact(job, operands)
            got = expected(job, operands).view(np.float32)
            metrics[name + suffix] = np.abs(got - wanted).max()
            if not outliers:
                metrics["row_sum_err" + suffix] = row_sum_error(job, operands)
        metrics[f"fp32_{name}"] = np.abs(flash32(job, operands) - wanted).max()


def functions(metrics):
    """Worst errors of the functions over their whole input range, relative, against float64."""
    for function in (Function.EXP2, Function.RECIPROCAL):
        metrics[f"{function.name.lower()}_max_rel_err"] = worst_error(function, per_binade=4000)[0]


def run(options):
    """Prefill: utilization of one PE and of the package, accuracy, bits."""
    base = Job()
    outcome = Outcome("attention", options.package)
    metrics, results = outcome.metrics, []
    with open_package(options) as transport:
        device = Device(transport)
        pes = len(device.pes) * len(device.dies)
        jobs = [("utilization", base),
                ("utilization_causal", replace(base, mask=Mask(causal=True))),
                ("utilization_head64", replace(base, head=64))]
        for at, (metric, job) in enumerate(jobs):
            options.step(at, len(jobs) + 3, f"{metric} on one PE")
            done = execute(device, job)
            metrics[metric] = job.macs() / (MACS[job.form] * done.cycles)
            metrics[metric.replace("utilization", "cycles")] = done.cycles
            results.append(done)
        options.step(len(jobs), len(jobs) + 3, "a head on each PE of the package")
        done = execute(device, base, heads=len(device.pes), dies=tuple(device.dies))
        metrics["utilization_package"] = base.macs() / (MACS[base.form] * done.cycles)
        results.append(done)
        options.step(len(jobs) + 1, len(jobs) + 3, "BF16 on one PE")
        for p in (Format.BF16, Format.FP16):
            results.append(execute(device, Job(form=Format.BF16, p=p), tiles=range(2)))
    options.step(len(jobs) + 2, len(jobs) + 3, "accuracy")
    accuracy(metrics)
    functions(metrics)
    metrics["elements_compared"] = sum(r.compared for r in results)
    outcome.checks["bit_exact"] = all(r.compared == r.equal for r in results)
    outcome.config = {"queries": base.queries, "keys": base.keys, "head": base.head,
                      "format": base.form.name, "p": base.p.name, "pes": pes,
                      "macs_per_cycle": MACS[base.form], "accuracy": "BF16 operands, P in FP16; "
                      "with suffix _bf16_p in BF16; against float64"}
    options.step(len(jobs) + 3, len(jobs) + 3, "done")
    return outcome


def execute_split(device, job, die=0):
    """Run one head on all PEs of a die, its keys shared out; compare every element."""
    operands = packed(job)
    head = place(device, die, job, operands)
    programs = flash_split(head, device.reduction_ring, p=job.p, mask=job.mask, cap=job.cap,
                           sinks=place_sinks(device, die, job))
    prepared = device.prepare(die, programs, stream=die)
    device.synchronize()
    device.start(prepared, stream=die).wait(100_000_000)
    cycles = max(int(counters.read(device, die, pe)[Unit.COMMAND_PROCESSOR][4]) for pe in programs)
    got = rows_of(job, device.get(head.out, stream=die), range(upper(job.queries, ROWS)))
    got = got.view(np.uint32)
    wanted = merged(job, operands, len(device.pes))
    return Run(cycles, wanted.size, int((got == wanted).sum()), 0)


def run_decode(options):
    """Decoding: bytes of K and V over what the fabric interface could have moved."""
    job = Job(queries=8, keys=4096, mask=Mask(share=3))
    with open_package(options) as transport:
        device = Device(transport)
        options.step(0, 2, "8 heads on one PE, 4,096 keys of one KV head")
        done = execute(device, job)
        options.step(1, 2, "the keys shared out to all PEs of a die")
        shared = execute_split(device, job)
    options.step(2, 2, "done")
    outcome = Outcome("attention_decode", options.package)
    outcome.metrics = {"kv_bandwidth_utilization": done.kv_bytes / (FABRIC_BYTES * done.cycles),
                       "cycles": done.cycles, "kv_bytes": done.kv_bytes,
                       "cycles_split": shared.cycles, "split_speedup": done.cycles / shared.cycles,
                       "elements_compared": done.compared + shared.compared}
    outcome.checks = {"bit_exact": done.compared == done.equal
                      and shared.compared == shared.equal}
    outcome.config = {"query_heads": job.queries, "kv_heads": 1, "keys": job.keys,
                      "head": job.head, "format": job.form.name, "p": job.p.name,
                      "fabric_bytes_per_cycle": FABRIC_BYTES}
    return outcome
