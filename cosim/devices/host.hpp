// The host side of the I/O chiplet: memory behind its AXI4 master, a master on its AXI4-Lite port.
#pragma once
#include <deque>

#include "device.hpp"

namespace mxlet {

// AXI4 memory, 64 bytes a beat, one beat a cycle each way.
//
// Any number of ids, answered in order; FIXED, INCR and WRAP bursts, narrow and unaligned ones too.
// `read_latency` cycles lie between the acceptance of an address and its first beat,
// `write_latency` between the last beat and its response; `outstanding` bursts are taken each way.
// An address outside the memory is answered DECERR and changes nothing. A broken protocol rule
// stops the simulation. Source: AMBA AXI protocol specification, IHI 0022H, A3; the default
// latencies (200 cycles) and depths (32) are this project's choice.
//
// Counters: 0 read bursts, 1 read beats, 2 write bursts, 3 write beats, 4 bytes written,
// 5 cycles with a read beat stalled by the die, 6 decode errors.
class HostMemory : public Device {
  public:
    explicit HostMemory(const Context& context)
        : context_(context), base_(context.parameter("base", 0)),
          read_latency_(context.parameter("read_latency", 200)),
          write_latency_(context.parameter("write_latency", 200)),
          outstanding_(context.parameter("outstanding", 32)) {
        wdata_ = context.pin("wdata", 512);
        wstrb_ = context.pin("wstrb", 64);
        rdata_ = context.pin("rdata", 512);
        if (context.pins.count("bid")) bid_ = context.pin("bid");
        if (context.pins.count("rid")) rid_ = context.pin("rid");
    }

    void step(uint64_t cycle) override {
        write_address();
        write_data(cycle);
        write_response(cycle);
        read_data(cycle);
        read_address(cycle);
    }
    bool idle() const override { return writes_.empty() && responses_.empty() && reads_.empty(); }

  private:
    static constexpr int OKAY = 0, DECERR = 3;
    struct Burst {
        uint64_t start = 0, id = 0, due = 0;
        uint32_t beats = 1, size = 6, kind = 1, beat = 0;
        bool outside = false;

        uint64_t address() const {  // of the present beat, IHI 0022H A3.4.1
            const uint64_t bytes = 1ull << size, aligned = start & ~(bytes - 1);
            if (beat == 0 || kind == 0) return start;
            const uint64_t next = aligned + beat * bytes;
            if (kind == 1) return next;
            const uint64_t span = bytes * beats, low = start & ~(span - 1);
            return low + (next - low) % span;
        }
    };
    struct Response {
        uint64_t id, due, code;
    };
    // A port of one channel, the ready or valid side that this device drives included.
    struct Address {
        Pin valid, ready, address, length, size, burst, id;
        bool stalled = false;
        uint64_t held = 0;

        Address(const Context& c, const std::string& p)
            : valid(c.pin(p + "valid", 1)), ready(c.pin(p + "ready", 1)), address(c.pin(p + "addr")),
              length(c.pin(p + "len", 8)) {
            if (c.pins.count(p + "size")) size = c.pin(p + "size", 3);
            if (c.pins.count(p + "burst")) burst = c.pin(p + "burst", 2);
            if (c.pins.count(p + "id")) id = c.pin(p + "id");
        }
    };

    const Context& context_;
    uint64_t base_, read_latency_, write_latency_, outstanding_;
    Address aw_{context_, "aw"}, ar_{context_, "ar"};
    Pin wvalid_ = context_.pin("wvalid", 1), wready_ = context_.pin("wready", 1);
    Pin wlast_ = context_.pin("wlast", 1);
    Pin bvalid_ = context_.pin("bvalid", 1), bready_ = context_.pin("bready", 1);
    Pin bresp_ = context_.pin("bresp", 2), rvalid_ = context_.pin("rvalid", 1);
    Pin rready_ = context_.pin("rready", 1), rresp_ = context_.pin("rresp", 2);
    Pin rlast_ = context_.pin("rlast", 1), wdata_, wstrb_, rdata_, bid_, rid_;
    std::deque<Burst> writes_, reads_;
    std::deque<Response> responses_;
    bool presented_ = false;  // a read beat waits for its ready: it must not change

    // Takes the address on a channel if there is room; checks the rules of valid.
    bool accept(Address& port, bool room, Burst& burst) {
        const bool valid = port.valid.high();
        const uint64_t address = port.address.get();
        if (port.stalled && (!valid || address != port.held))
            context_.fail("an address changed or went away before it was accepted");
        port.ready.set(room);
        port.stalled = valid && !room;
        port.held = address;
        if (!valid || !room) return false;
        burst.start = address;
        burst.beats = port.length.get() + 1;
        if (port.size.data) burst.size = port.size.get();
        if (port.burst.data) burst.kind = port.burst.get();
        if (port.id.data) burst.id = port.id.get();
        check(burst);
        return true;
    }
    void check(Burst& burst) {
        const uint64_t bytes = 1ull << burst.size, span = bytes * burst.beats;
        const uint64_t aligned = burst.start & ~(bytes - 1);
        if (burst.size > 6 || burst.kind > 2) context_.fail("a burst has a reserved size or type");
        if (burst.kind == 1 && (aligned & 4095) + span > 4096)
            context_.fail("a burst crosses a 4 KiB boundary");
        if (burst.kind == 2 && ((burst.beats & (burst.beats - 1)) || burst.beats > 16 ||
                                burst.beats < 2 || burst.start != aligned))
            context_.fail("a wrapping burst is unaligned or has a length other than 2, 4, 8, 16");
        const uint64_t low = burst.kind == 2 ? burst.start & ~(span - 1) : aligned;
        const uint64_t reach = burst.kind == 0 ? bytes : span, size = context_.memory_bytes;
        burst.outside = low < base_ || reach > size || low - base_ > size - reach;
        if (burst.outside) context_.counters[6]++;
    }
    void write_address() {
        Burst burst;
        if (accept(aw_, writes_.size() + responses_.size() < outstanding_, burst)) {
            context_.counters[2]++;
            writes_.push_back(burst);
        }
    }
    void write_data(uint64_t cycle) {
        const bool taken = !writes_.empty() && wvalid_.high();
        wready_.set(!writes_.empty());
        if (!taken) return;
        Burst& burst = writes_.front();
        const uint64_t line = burst.address() & ~63ull;
        const uint8_t* data = static_cast<const uint8_t*>(wdata_.data);
        uint64_t strobes = wstrb_.get();
        const bool last = burst.beat + 1 == burst.beats;
        if (wlast_.high() != last) context_.fail("WLAST does not mark the last beat of a burst");
        context_.counters[3]++;
        context_.counters[4] += __builtin_popcountll(strobes);
        uint64_t h = mix(mix(*context_.hash, cycle), line ^ strobes);
        for (int i = 0; i < 64; i += 8) {
            uint64_t word;
            std::memcpy(&word, data + i, 8);
            h = mix(h, word);
        }
        *context_.hash = h;
        if (!burst.outside) {
            uint8_t* to = context_.memory + (line - base_);
            if (strobes == ~0ull) {
                std::memcpy(to, data, 64);
            } else {
                for (; strobes; strobes &= strobes - 1) {
                    const int byte = __builtin_ctzll(strobes);
                    to[byte] = data[byte];
                }
            }
        }
        burst.beat++;
        if (!last) return;
        responses_.push_back({burst.id, cycle + write_latency_,
                              static_cast<uint64_t>(burst.outside ? DECERR : OKAY)});
        writes_.pop_front();
    }
    void write_response(uint64_t cycle) {
        const bool valid = !responses_.empty() && responses_.front().due <= cycle;
        bvalid_.set(valid);
        if (!valid) return;
        bresp_.set(responses_.front().code);
        if (bid_.data) bid_.set(responses_.front().id);
        if (bready_.high()) responses_.pop_front();
    }
    void read_data(uint64_t cycle) {
        const bool valid = !reads_.empty() && reads_.front().due <= cycle;
        rvalid_.set(valid);
        if (!valid) return;
        Burst& burst = reads_.front();
        const bool last = burst.beat + 1 == burst.beats;
        if (!presented_) {
            if (burst.outside) {
                std::memset(rdata_.data, 0, 64);
            } else {
                std::memcpy(rdata_.data, context_.memory + ((burst.address() & ~63ull) - base_), 64);
            }
            rresp_.set(burst.outside ? DECERR : OKAY);
            rlast_.set(last);
            if (rid_.data) rid_.set(burst.id);
        }
        presented_ = !rready_.high();
        if (presented_) {
            context_.counters[5]++;
            return;
        }
        context_.counters[1]++;
        burst.beat++;
        if (last) reads_.pop_front();
    }
    void read_address(uint64_t cycle) {
        Burst burst;
        if (accept(ar_, reads_.size() < outstanding_, burst)) {
            context_.counters[0]++;
            burst.due = cycle + read_latency_;
            reads_.push_back(burst);
        }
    }
};

// AXI4-Lite master: one access at a time, asked for and answered through the mailbox.
//
// Mailbox: 0 state (0 free, 1 asked, 2 answered), 1 write, 2 address, 3 data, 4 response code,
// 5 cycle of the answer. Counters: 0 reads, 1 writes.
class RegisterMaster : public Device {
  public:
    explicit RegisterMaster(const Context& context) : context_(context) {}

    void step(uint64_t cycle) override {
        uint64_t* mail = context_.mailbox;
        const bool asked = mail[0] == 1, write = mail[1] != 0;
        awvalid_.set(asked && write && !address_done_);
        wvalid_.set(asked && write && !data_done_);
        arvalid_.set(asked && !write && !address_done_);
        bready_.set(asked && write);
        rready_.set(asked && !write);
        if (!asked) return;
        if (write) {
            awaddr_.set(mail[2]);
            wdata_.set(mail[3]);
            wstrb_.set(~0ull >> (64 - wstrb_.bits));
            const bool answered = bvalid_.high();
            const uint64_t code = bresp_.get();
            address_done_ |= awready_.high();
            data_done_ |= wready_.high();
            if (answered) finish(cycle, code);
        } else {
            araddr_.set(mail[2]);
            const bool answered = rvalid_.high();
            if (answered) mail[3] = rdata_.get();
            const uint64_t code = rresp_.get();
            address_done_ |= arready_.high();
            if (answered) finish(cycle, code);
        }
    }
    bool idle() const override { return context_.mailbox[0] != 1; }

  private:
    const Context& context_;
    Pin awvalid_ = context_.pin("awvalid", 1), awready_ = context_.pin("awready", 1);
    Pin awaddr_ = context_.pin("awaddr"), wvalid_ = context_.pin("wvalid", 1);
    Pin wready_ = context_.pin("wready", 1), wdata_ = context_.pin("wdata");
    Pin wstrb_ = context_.pin("wstrb"), bvalid_ = context_.pin("bvalid", 1);
    Pin bready_ = context_.pin("bready", 1), bresp_ = context_.pin("bresp", 2);
    Pin arvalid_ = context_.pin("arvalid", 1), arready_ = context_.pin("arready", 1);
    Pin araddr_ = context_.pin("araddr"), rvalid_ = context_.pin("rvalid", 1);
    Pin rready_ = context_.pin("rready", 1), rdata_ = context_.pin("rdata");
    Pin rresp_ = context_.pin("rresp", 2);
    bool address_done_ = false, data_done_ = false;

    void finish(uint64_t cycle, uint64_t code) {
        uint64_t* mail = context_.mailbox;
        mail[4] = code;
        mail[5] = cycle;
        mail[0] = 2;
        context_.counters[mail[1] ? 1 : 0]++;
        address_done_ = data_done_ = false;
    }
};

}  // namespace mxlet
