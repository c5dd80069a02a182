// An HBM pseudo-channel as a device of a die.
#pragma once
#include "device.hpp"
#include "hbm_pseudo.hpp"

namespace mxlet {

// Pins: row_command, column_command, write_data, read_data, as the members of
// rtl/memory/hbm/channel.py. Parameters: every field of HbmTiming. A refused command stops the
// simulation. Counters: 0 activates, 1 precharges, 2 refreshes of all banks, 3 reads, 4 writes of
// 32 bytes, 5 refreshes of one bank.
class HbmPseudoDevice : public Device {
  public:
    explicit HbmPseudoDevice(const Context& context)
        : context_(context), channel_(context.memory, context.memory_bytes, timing(context)) {}

    void step(uint64_t) override {
        const uint64_t row = row_.get(), column = column_.get();
        pseudo::HbmRowCommand r{(row & 1) != 0, static_cast<pseudo::HbmRowOp>(row >> 1 & 7),
                                static_cast<uint32_t>(row >> 4 & 15), static_cast<uint32_t>(row >> 8)};
        pseudo::HbmColumnCommand c{(column & 1) != 0, (column >> 1 & 1) != 0,
                                   static_cast<uint32_t>(column >> 2 & 15),
                                   static_cast<uint32_t>(column >> 6)};
        attempt([&] {
            channel_.cycle(r, c, static_cast<const uint32_t*>(write_data_.data),
                           static_cast<uint32_t*>(read_data_.data));
        });
        if (!r.valid && !c.valid) return;
        const pseudo::HbmCounters& n = channel_.counters();
        const uint64_t values[] = {n.activates, n.precharges, n.refreshes, n.reads, n.writes,
                                   n.bank_refreshes};
        std::memcpy(context_.counters, values, sizeof values);
    }
    void skip(uint64_t cycles) override {
        attempt([&] { channel_.skip(cycles); });
    }

  private:
    const Context& context_;
    pseudo::HbmPseudo channel_;
    Pin row_ = context_.pin("row_command"), column_ = context_.pin("column_command", 11);
    Pin write_data_ = context_.pin("write_data", 272), read_data_ = context_.pin("read_data", 272);
    bool refused_ = false;

    template <typename Body>
    void attempt(Body body) {
        if (refused_) return;
        try {
            body();
        } catch (const pseudo::HbmViolation& violation) {
            refused_ = true;
            context_.fail(violation.what());
        }
    }

    static pseudo::HbmTiming timing(const Context& c) {
        auto get = [&](const char* name) {
            const uint64_t value = c.parameter(name, 0);
            if (!value)
                throw std::invalid_argument("Device " + c.name + " must be given the timing " + name);
            return static_cast<uint32_t>(value);
        };
        return {get("bl"),   get("cl"),    get("cwl"),   get("rcdrd"), get("rcdwr"), get("rp"),
                get("ras"),  get("rc"),    get("wr"),    get("rtp"),   get("ccds"),  get("ccdl"),
                get("rrds"), get("rrdl"),  get("faw"),   get("wtrs"),  get("wtrl"),  get("rtw"),
                get("rfc"),  get("rfcpb"), get("rrefd"), get("refi")};
    }
};

}  // namespace mxlet
