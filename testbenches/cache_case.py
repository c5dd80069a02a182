"""A cache of keys and values that a kernel writes, and attention over it, compared bit for bit."""
import numpy as np

from cosim.golden import formats as number_formats
from cosim.golden import kv as golden
from host.bench import attention as bench
from host.driver import Device
from host.isa import Format, Rule
from host.kernels.flash import Head, Mask, PageTable, flash
from host.kernels.kv import KeyValueHead, cache, chunking
from host.kernels.matmul import upper
from host.tensor import Packed, pack, pack_codes, pack_scales
from testbenches.host_fake import Configuration, FakePackage

STALE = 0x35    # what memory holds before


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


class Case:
    """Tokens and heads of a cache on die 0, by default of golden machines.

    ``pages``: those of a pool; None for a cache in one piece.
    """

    def __init__(self, tokens, width, size, *, heads=2, x=Format.E4M3, w=Format.E4M3,
                 form=Format.E4M3, v_form=None, bias=False, pages=None, pes=2, lines=8192,
                 device=None):
        self.device = d = device or Device(FakePackage(Configuration(dies=1, pes=pes),
                                                       lines=lines))
        self.x, self.size, self.pages = pack(numbers(1, tokens, width), x), size, pages
        count = upper(tokens, 128)
        rows = tokens if pages is None else 128 * (max(pages) + 1)
        self.forms = form, v_form or form
        self.weights, self.biases, self.heads = [], [], []
        for n in range(heads):
            pair = [pack(numbers(2 + 2 * n + i, size, width) / width ** 0.5, w) for i in (0, 1)]
            biases = [numbers(50 + 2 * n + i, size) if bias else None for i in (0, 1)]
            k = self.stale(rows, size, form)
            vt = self.stale(upper(rows, 128) * size, 128, self.forms[1])
            self.weights.append(pair)
            self.biases.append(biases)
            placed = [None if b is None else d.put(pack(b[None], Format.FP32), 0) for b in biases]
            self.heads.append(KeyValueHead(*(d.put(p, 0) for p in pair), k, vt, *placed))
        self.order = list(range(count)) if pages is None else pages
        self.tensor = d.put(self.x, 0)
        self.lines = lines

    def stale(self, rows, columns, form):
        tensor = self.device.empty(0, rows, columns, form)
        self.device.write(tensor.address, np.full(tensor.element_bytes, STALE, np.uint8))
        if form.is_mx:
            self.device.write(tensor.scales, np.full(tensor.scale_bytes, STALE, np.uint8))
        return tensor

    def run(self, rule=Rule.FLOOR):
        programs = cache(self.tensor, self.heads, pes=self.device.pes, pages=self.pages, rule=rule,
                         local_lines=self.lines)
        self.device.launch(0, programs).wait()
        self.rule = rule
        return programs

    def expected(self, number):
        """Golden K and pages of V^T of a head."""
        chunk, _ = chunking(self.tensor, self.heads[number], local_lines=self.lines)
        (wk, wv), (k_bias, v_bias) = self.weights[number], self.biases[number]
        form, v_form = (number_formats.Format(f) for f in self.forms)
        options = {"chunk": chunk, "rule": self.rule}
        return (golden.keys(self.x.operand, wk.operand, k_bias, format=form, **options),
                golden.values(self.x.operand, wv.operand, v_bias, format=v_form, **options))

    def memory(self, number):
        """Bytes of K and V^T of a head: elements, scales each."""
        head = self.heads[number]
        parts = []
        for t in (head.k, head.vt):
            parts.append(self.device.read(t.address, t.element_bytes).reshape(t.rows, -1))
            parts.append(self.device.read(t.scales, t.scale_bytes)[:t.rows * t.scale_stride]
                         .reshape(t.rows, -1) if t.format.is_mx else None)
        return parts

    def wanted(self, number):
        """The same bytes by the golden model; what is not written keeps its old bytes."""
        head = self.heads[number]
        (codes, scales), turned = self.expected(number)
        parts = []
        for t in (head.k, head.vt):
            parts.append(np.full((t.rows, t.row_bytes), STALE, np.uint8))
            parts.append(np.full((t.rows, t.scale_stride), STALE, np.uint8)
                         if t.format.is_mx else None)
        for at, page in enumerate(self.order):
            mine = slice(at * 128, at * 128 + 128)
            place(parts[:2], page * 128, codes[mine], None if scales is None else scales[mine],
                  head.k.format)
            place(parts[2:], page * self.size, *turned[at], head.vt.format)
        return parts

    def check(self, rule=Rule.FLOOR):
        programs = self.run(rule)
        for number in range(len(self.heads)):
            for got, wanted in zip(self.memory(number), self.wanted(number), strict=True):
                np.testing.assert_array_equal(got, wanted)
        return programs


def place(parts, row, codes, scales, form):
    elements, scale_rows = parts
    raw = pack_codes(codes, form)[:, :codes.shape[1] * form.bits // 8]
    elements[row:row + len(raw), :raw.shape[1]] = raw
    if form.is_mx:
        scale_rows[row:row + len(scales), :scales.shape[1]] = scales


def check_attention(case, p):
    """Causal attention over the cache of head 0; ``case`` has run."""
    device, form, size = case.device, case.forms[0], case.size
    keys = case.x.rows
    job = bench.Job(queries=24, keys=keys, head=size, form=form, p=p,
                    mask=Mask(causal=True, first=keys - 30))
    q = pack(job.values()[0], form)
    out = device.empty(0, 2 * size, 16, Format.FP32)
    table = None
    if case.pages:
        at = device.alloc(0, 64)
        device.write(at, np.array(case.pages, "<u4"))
        table = PageTable(at, keys)
    head = Head(device.put(q, 0), case.heads[0].k, case.heads[0].vt, out, table)
    device.launch(0, {0: flash(head, p=p, mask=job.mask)}).wait()
    (codes, scales), turned = case.expected(0)
    k = packed(codes, scales, size, form)
    parts = []
    for page, page_scales in turned:
        full, wide = np.zeros((size, 128), page.dtype), np.zeros((size, 4), np.uint8)
        full[:, :page.shape[1]] = page
        if page_scales is not None:
            wide[:, :page_scales.shape[1]] = page_scales
        parts.append((full, wide))
    vt = packed(*(np.concatenate(side) for side in zip(*parts, strict=True)), 128, form)
    got = bench.rows_of(job, device.get(out), range(2))
    wanted = bench.expected(job, bench.Packed(q, k, vt))
    np.testing.assert_array_equal(got.view(np.uint32), wanted)


def packed(codes, scales, columns, form):
    return Packed(len(codes), columns, form, pack_codes(codes, form),
                  pack_scales(scales, columns) if form.is_mx else None)
