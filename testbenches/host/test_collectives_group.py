"""Groups of ranks on packages without time: drivers, launches, queue pairs, errors."""
import numpy as np
import pytest

from cosim.golden import collectives as golden
from cosim.golden.formats import pack
from host.collectives import (
    Buffer,
    CollectiveError,
    EngineProgram,
    Group,
    Order,
    Port,
    Rail,
    System,
    plan,
)
from host.isa import LINE, Binary, Format, Region
from host.program import Program, table, use
from host.tensor import Tensor
from host.tensor import pack as pack_tensor
from testbenches.collective_case import random_vector
from testbenches.network_fake import World

RAILS = [Rail(0, (Port(0, 0, 0), Port(1, 0, 1))), Rail(1, (Port(0, 0, 2),))]


def world(ranks, *, seed=0, **options):
    made = World(ranks, seed=seed)
    return made, System(made.devices, options.pop("rails", RAILS), **options)


def put(device, vector, die=0):
    data = pack(vector.format, vector.codes)
    at = device.alloc(die, len(data), Region.HBM)
    device.write(at, data)
    scales = None
    if vector.scales is not None:
        scales = device.alloc(die, len(vector.scales), Region.HBM)
        device.write(scales, vector.scales)
    return Buffer(at, len(vector), Format(vector.format), scales)


def room(device, like, count):
    return put(device, type(like)(like.format, np.zeros(count, like.codes.dtype),
                                  None if like.scales is None else np.zeros(count // 32,
                                                                            np.uint8)))


def check(device, buffer, want):
    raw = pack(want.format, want.codes)
    assert np.array_equal(device.read(buffer.address, len(raw)), raw)
    if want.scales is not None:
        assert np.array_equal(device.read(buffer.scales, len(want.scales)), want.scales)


@pytest.mark.parametrize("wire", [False, True])
@pytest.mark.parametrize("format, count", [(Format.BF16, 1000), (Format.E4M3, 4 * 2048 + 128)])
def test_collectives_of_a_group(format, count, wire):
    n = 4
    made, system = world(n, seed=count)
    group, rng = Group(system, check=wire), np.random.default_rng(0)
    x = [random_vector(rng, format, count) for _ in range(n)]

    def sources():
        return [put(d, v) for d, v in zip(made.devices, x, strict=True)]

    def rooms(size):
        return [room(d, x[0], size) for d in made.devices]

    def compare(handle, targets, wants):
        handle.wait()
        assert handle.done
        for device, target, want in zip(made.devices, targets, wants, strict=True):
            check(device, target, want)

    total = golden.all_reduce(x, "ring")
    here = sources()
    compare(group.all_reduce(here, algorithm="ring"), here, [total] * n)
    here, there = sources(), rooms(count)
    compare(group.all_reduce(here, there, algorithm="doubling"), there,
            [golden.all_reduce(x, "doubling")] * n)
    there = rooms(count // n)
    compare(group.reduce_scatter(here, there, algorithm="direct"), there,
            golden.reduce_scatter(x, "direct"))
    there = rooms(n * count)
    compare(group.all_gather(here, there), there, [golden.join(x)] * n)
    there = rooms(count)
    compare(group.all_to_all(here, there), there, golden.all_to_all(x))
    group.reduce(here, there, root=2, algorithm="tree").wait()
    check(made.devices[2], there[2], golden.reduce(x, "tree", 2))
    compare(group.broadcast(here, root=1), here, [x[1]] * n)
    group.send(sources()[3], there[0], 3, 0).wait()
    check(made.devices[0], there[0], x[3])
    group.barrier().wait()
    assert not made.model.races and not any(system.under_way.values())


def test_chunks_in_place():
    n, format = 3, Format.FP32
    made, system = world(n)
    group, rng = Group(system), np.random.default_rng(1)
    x = [random_vector(rng, format, 3 * 50) for _ in range(n)]
    here = [put(d, v) for d, v in zip(made.devices, x, strict=True)]
    group.reduce_scatter(here, algorithm="ring").wait()
    group.all_gather(None, here).wait()
    want = golden.join(golden.reduce_scatter(x, "ring"))
    for device, buffer in zip(made.devices, here, strict=True):
        check(device, buffer, want)
    group.all_to_all(here).wait()
    for device, buffer, vector in zip(made.devices, here, golden.all_to_all([want] * n),
                                      strict=True):
        check(device, buffer, vector)


def test_a_sub_group_has_an_order_of_its_own():
    made, system = world(5)
    group, rng = Group(system, [4, 0, 3]), np.random.default_rng(2)
    x = [random_vector(rng, Format.BF16, 300) for _ in range(3)]
    here = [put(made.devices[r], v) for r, v in zip([4, 0, 3], x, strict=True)]
    group.all_reduce(here, algorithm="direct").wait()
    for r, buffer in zip([4, 0, 3], here, strict=True):
        check(made.devices[r], buffer, golden.all_reduce(x, "direct"))
    assert len(group) == 3 and {k[0] for k in system.connections} == {0, 3, 4}


def test_rails_are_apart():
    made, system = world(3)
    group, rng = Group(system), np.random.default_rng(3)
    x = [[random_vector(rng, Format.BF16, 5000) for _ in range(3)] for _ in range(2)]
    here = [tuple(put(made.devices[r], x[die][r], die) for die in range(2)) for r in range(3)]
    for handle in group.all_reduce(here, algorithm="ring"):
        handle.wait()
    for r in range(3):
        for die in range(2):
            check(made.devices[r], here[r][die], golden.all_reduce(x[die], "ring"))
    # The lanes of rail 0 use its two NICs in turn.
    assert {(key[3], system._port(key[3], key[2]).number) for key in system.connections} == {
        (0, 0), (0, 1), (1, 2)}


def test_runs_of_any_size():
    made, system = world(2)
    group, rng = Group(system), np.random.default_rng(4)
    x = [random_vector(rng, Format.FP16, 40) for _ in range(2)]
    here = [put(d, v) for d, v in zip(made.devices, x, strict=True)]
    there = [room(d, x[0], 40) for d in made.devices]
    sent, received = [[(0, 5), (9, 3)], [(1, 0), (30, 10)]], [[(7, 5), (0, 0)], [(1, 3), (20, 10)]]
    group.all_to_all_v(here, there, sent, received).wait()
    raw = made.devices[1].read(there[1].address, 80).view("<u2")
    assert np.array_equal(raw[1:4], x[0].codes[9:12])
    assert np.array_equal(raw[20:30], x[1].codes[30:40]) and not raw[4:20].any()
    with pytest.raises(ValueError, match="Rank 0 sends 4 elements to rank 1, which wants 3"):
        group.all_to_all_v(here, there, [[(0, 5), (9, 4)], sent[1]], received)
    with pytest.raises(ValueError, match="Rank 0 has 40 elements, not 41"):
        group.all_to_all_v(here, there, [[(36, 5), (9, 3)], sent[1]], received)


def test_what_ranks_see_otherwise_is_found_before_anything_starts():
    made, system = world(3)
    group, rng = Group(system), np.random.default_rng(5)
    good = [put(d, random_vector(rng, Format.BF16, 64)) for d in made.devices]
    short = [*good[:2], put(made.devices[2], random_vector(rng, Format.BF16, 63))]
    other = [*good[:1], put(made.devices[1], random_vector(rng, Format.FP16, 64)), good[2]]
    far = [*good[:2], put(made.devices[2], random_vector(rng, Format.BF16, 64), die=1)]
    for call, words in (
            (lambda: group.all_reduce(short), "rank 2 has 63 elements, rank 0 64"),
            (lambda: group.all_reduce(other), "rank 1 has FP16, rank 0 BF16"),
            (lambda: group.all_reduce(far), "same die of all ranks, not on dies"),
            (lambda: group.all_reduce(good[:2]), "needs sources of 3 ranks, not 2"),
            (lambda: group.reduce_scatter(good), "a multiple of 3 elements, not 64"),
            (lambda: group.all_gather(good, good), "must have 192 elements, not 64"),
            (lambda: group.broadcast(good, root=3), "Root must be 0 to 2, not 3"),
            (lambda: group.send(good[0], short[2], 0, 2), "rank 2 has 63 elements, rank 0 64"),
            (lambda: group.send(good[0], good[0], 0, 0), "Peer must be another rank"),
            (lambda: group.all_reduce(good, algorithm="star"), "must be one of ring"),
            (lambda: Group(system, [0, 3]), "Rank 3 is not one of the 3"),
            (lambda: Group(system, [0, 1, 0]), "must be different"),
            (lambda: Group(System(made.devices, [Rail(1)])).all_reduce(good),
             "Die 0 has no message engine")):
        with pytest.raises(ValueError, match=words):
            call()
    assert not any(system.under_way.values())


def launch_all(group, plans, buffers):
    """Launch plans that need not fit together, as ranks of several hosts would."""
    from host.collectives.group import Handle
    pairs = {(made.rank, *pair) for made in plans for pair in made.queue_pairs}
    pairs |= {(peer, rank, lane) for rank, peer, lane in pairs}
    bells = group.system.connect(sorted(pairs), 0)
    return Handle(group, "all_reduce", 0, [
        group._prepare(made.rank, made, {"output": b}, bells, 0, 1000, {}, 0)
        for made, b in zip(plans, buffers, strict=True)]).start()


@pytest.mark.parametrize("change, words", [
    ({"count": 60}, "count 64 against 60|count 60 against 64"),
    ({"format": Format.FP16}, "format BF16 against FP16"),
    ({"algorithm": "direct"}, "algorithm doubling against direct"),
    ({"sequence": 8}, "sequence 7 against 8")])
def test_what_ranks_of_other_hosts_see_otherwise_is_found_on_the_network(change, words):
    """Nobody hangs, nobody has a wrong result: all have an error, and it says what differs."""
    made, system = world(2)
    group, rng = Group(system), np.random.default_rng(6)
    here = [put(d, random_vector(rng, Format.BF16, 64)) for d in made.devices]
    common = {"count": 64, "format": Format.BF16, "ranks": 2, "algorithm": "doubling",
              "in_place": True, "check": True, "sequence": 7}
    plans = [plan("all_reduce", rank=0, **common), plan("all_reduce", rank=1, **common | change)]
    handle = launch_all(group, plans, here)
    with pytest.raises(CollectiveError, match=words) as caught:
        handle.wait()
    assert "rank 0" in str(caught.value) and "rank 1" in str(caught.value)
    assert all(r.event.completion.code for r in handle.running)
    # The group can be used again.
    x = [random_vector(rng, Format.BF16, 64) for _ in range(2)]
    here = [put(d, v) for d, v in zip(made.devices, x, strict=True)]
    group.all_reduce(here, algorithm="direct").wait()
    check(made.devices[1], here[1], golden.all_reduce(x, "direct"))


def test_a_rank_that_stops_is_found_by_the_others():
    made, system = world(4)
    group, rng = Group(system), np.random.default_rng(7)
    here = [put(d, random_vector(rng, Format.BF16, 999)) for d in made.devices]
    made.stopped.add(2)
    with pytest.raises(CollectiveError, match="WATCHDOG") as caught:
        group.all_reduce(here, algorithm="ring").wait()
    assert "with rank" in str(caught.value)
    made.stopped.clear()
    x = [random_vector(rng, Format.BF16, 999) for _ in range(4)]
    here = [put(d, v) for d, v in zip(made.devices, x, strict=True)]
    group.all_reduce(here, algorithm="ring").wait()
    check(made.devices[0], here[0], golden.all_reduce(x, "ring"))


def test_queue_pairs_are_given_up_for_others_or_missed():
    made, system = world(4, rails=[Rail(0)], queue_pairs=2)
    group, rng = Group(system), np.random.default_rng(8)
    x = [random_vector(rng, Format.BF16, 99) for _ in range(4)]
    for algorithm in ("ring", "doubling", "ring"):
        here = [put(d, v) for d, v in zip(made.devices, x, strict=True)]
        group.all_reduce(here, algorithm=algorithm, lanes=1).wait()
        for device, buffer in zip(made.devices, here, strict=True):
            check(device, buffer, golden.all_reduce(x, algorithm))
    with pytest.raises(RuntimeError, match="has 2 queue pairs, all in use"):
        group.all_reduce(here, algorithm="direct")


def test_staging_memory_is_given_back():
    made, system = world(2)
    group, rng = Group(system), np.random.default_rng(9)
    here = [put(d, random_vector(rng, Format.BF16, 500)) for d in made.devices]
    before = [list(h.free) for d in made.devices for h in d.heaps.values()]
    for _ in range(3):
        group.all_reduce(here).wait()
    assert [list(h.free) for d in made.devices for h in d.heaps.values()] == before


def test_tensors_are_buffers_if_their_scales_are_dense():
    made, system = world(2)
    group, rng = Group(system), np.random.default_rng(10)
    values = [rng.normal(size=(8, 96)).astype(np.float32) for _ in range(2)]
    packed = [pack_tensor(v, Format.E4M3) for v in values]
    tensors = [d.put(p, 0, Region.HBM) for d, p in zip(made.devices, packed, strict=True)]
    group.all_reduce([Buffer.of(t) for t in tensors], algorithm="direct").wait()
    x = [golden.Vector(Format.E4M3, p.elements.reshape(-1), p.scales.reshape(-1)) for p in packed]
    check(made.devices[0], Buffer.of(tensors[0]), golden.all_reduce(x, "direct"))
    with pytest.raises(ValueError, match="have scales every 8 bytes: a collective wants 6"):
        Buffer.of(Tensor(0, 2, 160, Format.E4M3, 4096))


def test_a_work_packet_computes_and_reduces():
    """PEs add two arrays on every rank; the engine sums that over the ranks, in the same packet."""
    n, rows, columns = 3, 4, 128
    made, system = world(n)
    group, rng = Group(system), np.random.default_rng(11)
    values = rng.normal(size=(n, 2, rows, columns)).astype(np.float32)
    beside, targets = [], []
    for device, pair in zip(made.devices, values, strict=True):
        a, b = (device.put(pack_tensor(v, Format.FP32), 0, Region.HBM) for v in pair)
        out = device.empty(0, rows, columns, Format.FP32, Region.HBM)
        targets.append(Buffer.of(out))
        program = Program()
        size = rows * a.row_bytes
        left, right, total = (program.buffer(size // LINE) for _ in range(3))
        for cb, tensor in ((left, a), (right, b)):
            program.dma_in(use(cb, release=size // LINE), tensor.address, row_bytes=size)
        program.simd(use(left, wait=size // LINE, release=size // LINE),
                     use(total, wait=size // LINE, release=size // LINE), rows=rows,
                     columns=columns, src1=use(right, wait=size // LINE, release=size // LINE),
                     op=Binary.ADD)
        program.dma_out(use(total, wait=size // LINE, release=size // LINE), out.address,
                        row_bytes=size)
        program.phase(barrier=True)
        beside.append({2: program})
    group.all_reduce(targets, algorithm="direct", beside=beside,
                     order=Order(arrive=True)).wait()
    sums = values[:, 0] + values[:, 1]
    want = ((sums[0] + sums[1]) + sums[2]).reshape(-1)
    for device, target in zip(made.devices, targets, strict=True):
        raw = device.read(target.address, 4 * rows * columns).view("<f4")
        assert np.array_equal(raw, want)


def test_a_program_of_a_message_engine_lies_beside_those_of_pes():
    made = plan("barrier", count=1, ranks=2, rank=0, lanes=1)
    from host.collectives import Binding, Place
    entries = Binding(made, {"staging": Place(0x1000, 1)}, {
        pair: (0x40000, 0x80000) for pair in made.queue_pairs}).entries()
    base = 3 << 44 | 0x800
    block = np.frombuffer(table({2: Program(), 16: EngineProgram(entries)}, base=base, pes=17),
                          "<u4").reshape(-1, 16)
    assert block[0, 2] == 2 and block[1, 0] == 3    # two lines of table, one of PE 2
    header = block[3].view("<u8")
    assert header[0] == 1 and header[1] == (base + 4 * LINE | len(entries[0]) << 48)
    assert block[4:].tobytes() == entries[0].tobytes()


def test_nics_for_scale_out_are_left_to_others():
    made = World(2)
    rail = Rail(0, tuple(Port(0, nic, nic) for nic in range(3)))
    system = System(made.devices, [rail], scale_out={1})
    group, rng = Group(system), np.random.default_rng(8)
    x = [random_vector(rng, Format.BF16, 5000) for _ in made.devices]
    buffers = [put(d, v) for d, v in zip(made.devices, x, strict=True)]
    group.all_reduce(buffers, algorithm="ring", lanes=4).wait()
    for device, buffer in zip(made.devices, buffers, strict=True):
        check(device, buffer, golden.all_reduce(x, "ring"))
    assert sorted(made.scale_out.values()) == [0, 0, 0, 0, 1, 1]
    assert {system._port(0, lane).number for lane in range(4)} == {0, 2}


@pytest.mark.parametrize("scale_out, words", [({0}, "Rail 0 needs a NIC for scale-up"),
                                              ({5}, r"must be among \[0\], not \[5\]")])
def test_a_rail_needs_a_nic_for_scale_up(scale_out, words):
    with pytest.raises(ValueError, match=words):
        System(World(1).devices, scale_out=scale_out)
