"""Tests of host/driver.py against a package without time."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.driver import Device, DeviceError, DeviceTimeout, Heap
from host.isa import Code, Format, Op, Region, command
from host.program import Program
from testbenches.host_fake import Configuration, FakePackage


def device():
    return Device(FakePackage(Configuration(dies=2, pes=2)))


def test_copies_return_what_they_brought():
    d = device()
    data = np.random.default_rng(0).integers(0, 256, 1001, dtype=np.uint8)
    for die, region in ((0, Region.SRAM), (1, Region.HBM)):
        at = d.alloc(die, len(data), region)
        d.write(at, data)
        np.testing.assert_array_equal(d.read(at, len(data)), data)


def test_more_submissions_than_the_ring_holds():
    d = device()
    at = d.alloc(0, 64 * 200)
    for i in range(200):
        d.write(at + 64 * i, np.full(64, i, np.uint8))
    np.testing.assert_array_equal(d.read(at, 64 * 200)[::64], np.arange(200))


@pytest.mark.parametrize("count", [1, 7, 150])
def test_reads_that_are_asked_for_together(count):
    """150 are more than the ring holds."""
    d = device()
    at, free = d.alloc(1, 64 * count), list(d.host_heap.free)
    data = np.arange(64 * count, dtype=np.uint32).astype(np.uint8).reshape(count, 64)
    d.write(at, data)
    order = np.random.default_rng(0).permutation(count)
    got = d.read_each([at + 64 * int(n) + 3 for n in order], 20)
    np.testing.assert_array_equal(got, data[order, 3:23])
    assert d.host_heap.free == free


def test_error_of_one_of_several_reads():
    d = device()
    at, free = d.alloc(0, 64), list(d.host_heap.free)
    with pytest.raises(DeviceError, match="BAD_ADDRESS"):
        d.read_each([at, 1 << 44 | 15 << 40, at], 64)
    d.synchronize()
    np.testing.assert_array_equal(d.read(at, 64), np.zeros(64))
    assert d.host_heap.free == free


def test_staging_memory_is_given_back():
    d = device()
    free = list(d.host_heap.free)
    for _ in range(50):
        d.write(d.alloc(0, 64), np.zeros(64, np.uint8))
    d.synchronize()
    assert d.host_heap.free == free


def test_error_names_the_code_and_the_others_go_on():
    d = device()
    bad = d.write(0xF << 40, np.zeros(64, np.uint8))
    good = d.write(d.alloc(0, 64), np.ones(64, np.uint8))
    good.wait()
    with pytest.raises(DeviceError, match="BAD_ADDRESS"):
        bad.wait()
    with pytest.raises(DeviceError, match="BAD_ADDRESS"):
        d.write(0xF << 40, np.zeros(64, np.uint8))
        d.synchronize()


def test_unknown_command_ends_in_an_error_completion():
    d = device()
    program = Program()
    program.commands.append(command(0x77))
    with pytest.raises(DeviceError) as caught:
        d.launch(0, {0: program}).wait()
    assert caught.value.completion.code == Code.BAD_COMMAND


def test_a_completion_nobody_waits_for_stops_nothing():
    d = device()
    d.write(d.alloc(0, 64), np.zeros(64, np.uint8))
    d.pending.clear()
    d.order.clear()
    at = d.alloc(0, 64)
    d.write(at, np.full(64, 7, np.uint8))
    np.testing.assert_array_equal(d.read(at, 64), np.full(64, 7))


def test_time_out_names_what_did_not_complete():
    d = device()
    d.transport.run_until_interrupt = lambda cycles: setattr(
        d.transport, "cycle", d.transport.cycle + cycles)
    event = d.write(d.alloc(0, 64), np.zeros(64, np.uint8))
    with pytest.raises(DeviceTimeout, match="After 1000 cycles .* Copy of 64 bytes"):
        event.wait(timeout=1000)


def test_error_of_a_copy_names_its_address():
    d = device()
    with pytest.raises(DeviceError, match=r"BAD_ADDRESS \(.*, address 0xf0000000040\)") as caught:
        d.write(0xF << 40 | 100, np.zeros(20, np.uint8)).wait()
    assert caught.value.completion.address == 0xF << 40 | 64


def test_streams_wait_for_records_of_others():
    d = device()
    event, other = d.event(), d.event()
    assert event.number != other.number
    for n in range(1, 4):
        d.record(event, stream=1)
        assert d.wait(event, stream=2).wait().value == n
    with pytest.raises(ValueError, match="Event 0 is recorded by stream 1: stream 2 must have"):
        d.record(event, stream=2)
    with pytest.raises(ValueError, match="Event 1 must be recorded before a stream waits for it"):
        d.wait(other, stream=2)


def test_events_are_given_back_and_count_on():
    d = device()
    events = [d.event() for _ in range(16)]
    with pytest.raises(RuntimeError, match="All 16 events are in use: release one"):
        d.event()
    done = d.record(events[5], stream=1)
    with pytest.raises(ValueError, match="Event 5 must be reached before it is released"):
        d.release_event(events[5])
    done.wait()
    d.release_event(events[5])
    again = d.event()
    assert (again.number, again.records, again.stream) == (5, 1, None)
    d.record(again, stream=3)
    assert d.wait(again, stream=0).wait().value == 2


def test_a_wait_that_does_not_end_says_who_waits_for_whom():
    d = device()
    event = d.event()
    d.record(event, stream=1).wait()
    event.records += 1      # a record that is lost
    with pytest.raises(DeviceError, match="Wait of stream 2 for record 2 of event 0 by stream 1 "
                       "ended with WATCHDOG .*, 1 records were there"):
        d.wait(event, stream=2).wait()


def test_buffers_beyond_local_memory_are_refused():
    program = Program(local_lines=10)
    program.buffer(8)
    with pytest.raises(ValueError, match="need 11 lines, local memory has 10"):
        program.buffer(3)
    assert program.commands[0][0] & 0xff == Op.CB_CONFIG


def test_formats_of_operands_are_padded_to_blocks():
    assert Format.E2M1.row_bytes(33) == 32
    assert Format.E4M3.row_bytes(33) == 64
    assert Format.BF16.row_bytes(33) == 66


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5000)), max_size=60))
def test_heap_gives_disjoint_pieces_and_takes_them_back(steps):
    heap, live = Heap(64, 64 * 500), {}
    for take, value in steps:
        if take or not live:
            try:
                at = heap.alloc(value)
            except MemoryError:
                continue
            size = max(-(-value // 64), 1) * 64
            assert all(at + size <= b or b + s <= at for b, s in live.items())
            assert at % 64 == 0 and 64 <= at and at + size <= 64 + 64 * 500
            live[at] = size
        else:
            at = sorted(live)[value % len(live)]
            heap.release(at)
            del live[at]
    for at in live:
        heap.release(at)
    assert heap.free == [(64, 64 * 500)]
