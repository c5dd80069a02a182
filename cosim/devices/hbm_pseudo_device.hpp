// An HBM pseudo-channel as a device of a die.
#pragma once
#include "device.hpp"
#include "hbm_pseudo.hpp"

namespace mxlet {

// Pins: row_command, column_command, write_data, read_data, as the members of
// rtl/memory/hbm/channel.py. Parameters: every field of HbmTiming. A `step` is a clock of the
// commands; `skip` lets clocks pass in which the channel rests. A refused command stops the
// simulation. Counters: 0 activates, 1 precharges, 2 refreshes of all banks, 3 reads, 4 writes (of
// 32 bytes), 5 refreshes of one bank.
//
// Faults come through the mailbox from its word 8 on: word 0 of these counts up with each order, 1 kind (1 flip a bit, 2 stick
// it at 0, 3 at 1, 4 fail a row, 5 heal all), 2 access (bank of the row), 3 bit (row); word 4 then
// becomes word 0, and word 5 is 1 if there is no such bit, else 0.
class HbmPseudoDevice : public Device {
  public:
    explicit HbmPseudoDevice(const Context& context)
        : context_(context), channel_(context.memory, context.memory_bytes, timing(context)) {}

    void step(uint64_t) override {
        if (refused_) return;
        if (context_.mailbox && context_.mailbox[FIRST] != orders_) order();
        const uint64_t row = row_.get(), column = column_.get();
        const pseudo::HbmRowCommand r{(row & 1) != 0, static_cast<pseudo::HbmRowOp>(row >> 1 & 7),
                                      static_cast<uint32_t>(row >> 4 & 15),
                                      static_cast<uint32_t>(row >> 8)};
        const pseudo::HbmColumnCommand c{(column & 1) != 0, (column >> 1 & 1) != 0,
                                         static_cast<uint32_t>(column >> 2 & 15),
                                         static_cast<uint32_t>(column >> 6)};
        attempt([&] {
            channel_.cycle(r, c, static_cast<const uint32_t*>(write_data_.data),
                           static_cast<uint32_t*>(read_data_.data));
        });
        if (r.valid || c.valid) count();
    }
    void skip(uint64_t clocks) override {
        if (!refused_) attempt([&] { channel_.skip(clocks); });
    }

  private:
    const Context& context_;
    pseudo::HbmPseudo channel_;
    Pin row_ = context_.pin("row_command"), column_ = context_.pin("column_command", 11);
    Pin write_data_ = context_.pin("write_data", 272), read_data_ = context_.pin("read_data", 272);
    static constexpr int FIRST = 8;
    uint64_t orders_ = 0;
    bool refused_ = false;

    template <typename Function> void attempt(Function function) {
        try {
            function();
        } catch (const pseudo::HbmViolation& violation) {
            refused_ = true;
            context_.fail(violation.what());
        }
    }
    void count() {
        const auto& counters = channel_.counters();
        const uint64_t values[] = {counters.activates, counters.precharges, counters.refreshes,
                                   counters.reads, counters.writes, counters.bank_refreshes};
        std::memcpy(context_.counters, values, sizeof values);
    }
    void order() {
        uint64_t* words = context_.mailbox + FIRST;
        orders_ = words[0];
        words[5] = 0;
        try {
            pseudo::HbmFaults& faults = channel_.faults();
            switch (words[1]) {
            case 1: faults.flip(words[2], static_cast<uint32_t>(words[3])); break;
            case 2: faults.stick(words[2], static_cast<uint32_t>(words[3]), false); break;
            case 3: faults.stick(words[2], static_cast<uint32_t>(words[3]), true); break;
            case 4: faults.fail_row(static_cast<uint32_t>(words[2]), static_cast<uint32_t>(words[3])); break;
            case 5: faults.heal(); break;
            default: words[5] = 1;
            }
        } catch (const std::invalid_argument&) {
            words[5] = 1;
        }
        words[4] = orders_;
    }

    static pseudo::HbmTiming timing(const Context& c) {
        auto get = [&](const char* name) {
            const uint64_t value = c.parameter(name, 0);
            if (!value)
                throw std::invalid_argument("Device " + c.name + " must be given the timing " + name);
            return static_cast<uint32_t>(value);
        };
        return {get("bl"),   get("cl"),   get("cwl"),  get("rcdrd"), get("rcdwr"), get("rp"),
                get("ras"),  get("rc"),   get("wr"),   get("rtp"),   get("ccds"),  get("ccdl"),
                get("rrds"), get("rrdl"), get("faw"),  get("wtrs"),  get("wtrl"),  get("rtw"),
                get("rfc"),  get("rfcpb"), get("rrefd"), get("refi")};
    }
};

}  // namespace mxlet
