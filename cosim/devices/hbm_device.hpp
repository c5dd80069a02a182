// An HBM channel as a device of a die.
#pragma once
#include "device.hpp"
#include "hbm.hpp"

namespace mxlet {

// Pins: row_command, column_command, write_data, write_mask, read_data, as the members of
// rtl/memory/hbm_controller.py. Parameters: every field of HbmTiming. A refused command stops the
// simulation. Counters: 0 activates, 1 precharges, 2 refreshes, 3 reads, 4 writes.
class HbmDevice : public Device {
  public:
    explicit HbmDevice(const Context& context)
        : context_(context), channel_(context.memory, context.memory_bytes, timing(context)) {}

    void step(uint64_t) override {
        const uint64_t row = row_.get(), column = column_.get();
        HbmRowCommand r{(row & 1) != 0, static_cast<HbmRowOp>(row >> 1 & 3),
                        static_cast<uint32_t>(row >> 3 & 15), static_cast<uint32_t>(row >> 7)};
        HbmColumnCommand c{(column & 1) != 0, (column >> 1 & 1) != 0,
                           static_cast<uint32_t>(column >> 2 & 15),
                           static_cast<uint32_t>(column >> 6)};
        if (refused_) return;
        try {
            channel_.cycle(r, c, static_cast<const uint32_t*>(write_data_.data), write_mask_.get(),
                           static_cast<uint32_t*>(read_data_.data));
        } catch (const HbmViolation& violation) {
            refused_ = true;
            context_.fail(violation.what());
        }
        if (!r.valid && !c.valid) return;
        const HbmCounters& counters = channel_.counters();
        const uint64_t values[] = {counters.activates, counters.precharges, counters.refreshes,
                                   counters.reads, counters.writes};
        std::memcpy(context_.counters, values, sizeof values);
    }

  private:
    const Context& context_;
    HbmChannel channel_;
    Pin row_ = context_.pin("row_command"), column_ = context_.pin("column_command", 11);
    Pin write_data_ = context_.pin("write_data", 512), write_mask_ = context_.pin("write_mask", 64);
    Pin read_data_ = context_.pin("read_data", 512);
    bool refused_ = false;

    static HbmTiming timing(const Context& c) {
        auto get = [&](const char* name) {
            const uint64_t value = c.parameter(name, 0);
            if (!value)
                throw std::invalid_argument("Device " + c.name + " must be given the timing " + name);
            return static_cast<uint32_t>(value);
        };
        return {get("bl"),   get("cl"),   get("cwl"),  get("rcdrd"), get("rcdwr"),
                get("rp"),   get("ras"),  get("rc"),   get("wr"),    get("rtp"),
                get("ccds"), get("ccdl"), get("rrds"), get("rrdl"),  get("faw"),
                get("wtrs"), get("wtrl"), get("rtw"),  get("rfc"),   get("refi")};
    }
};

}  // namespace mxlet
