// What goes over a cable of the fabric in a cycle, and the end of a cable at a NIC.
#pragma once
#include "device.hpp"

namespace mxlet {

// A beat of a frame, a word about pausing, or both: pins `<end>_valid` and `<end>_data`.
struct Phit {
    // Bits of the data from 128 on. TOLD: PAUSED says whether the receiver shall pause its sending.
    static constexpr uint32_t LAST = 1, ERROR = 2, BEAT = 4, TOLD = 8, PAUSED = 16;
    static constexpr uint32_t BITS = 133, BEAT_BYTES = 16;

    uint64_t beat[2] = {0, 0};
    uint32_t flags = 0;
};

class CableEnd {
  public:
    CableEnd(const Context& context, const std::string& end)
        : valid_(context.pin(end + "_valid", 1)), data_(context.pin(end + "_data", Phit::BITS)) {}

    bool valid() const { return valid_.high(); }
    Phit get() const {
        Phit phit;
        std::memcpy(phit.beat, data_.data, Phit::BEAT_BYTES);
        std::memcpy(&phit.flags, static_cast<uint8_t*>(data_.data) + Phit::BEAT_BYTES, 4);
        return phit;
    }
    void set(const Phit& phit) const {  // nothing is sent if no flag is set
        valid_.set(phit.flags != 0);
        if (!phit.flags) return;
        std::memcpy(data_.data, phit.beat, Phit::BEAT_BYTES);
        std::memcpy(static_cast<uint8_t*>(data_.data) + Phit::BEAT_BYTES, &phit.flags, 4);
    }

  private:
    Pin valid_, data_;
};

// The MAC of a NIC: its AXI-Stream port (MacPort of rtl/net/interfaces.py) on one side, a cable on
// the other. A beat passes without delay. While the fabric asks for a pause, no frame begins; one
// that has begun is ended. A broken rule of the port stops the simulation.
//
// Ports: `out` and `in` of the cable. Counters: 0 frames and 1 bytes sent, 2 frames and 3 bytes
// received, 4 frames received with an error, 5 cycles in which a frame waited for the pause to end.
class Mac : public Device {
  public:
    explicit Mac(const Context& context) : context_(context) {
        tkeep_ = context.pin("tx_tkeep", Phit::BEAT_BYTES);
        rx_tkeep_ = context.pin("rx_tkeep", Phit::BEAT_BYTES);
        rx_tkeep_.set(0xFFFF);
    }

    void step(uint64_t) override {
        receive();
        transmit();
    }

  private:
    const Context& context_;
    CableEnd out_{context_, "out"}, in_{context_, "in"};
    Pin tvalid_ = context_.pin("tx_tvalid", 1), tready_ = context_.pin("tx_tready", 1);
    Pin tdata_ = context_.pin("tx_tdata", 128), tlast_ = context_.pin("tx_tlast", 1);
    Pin tuser_ = context_.pin("tx_tuser", 1), tkeep_;
    Pin rx_tvalid_ = context_.pin("rx_tvalid", 1), rx_tready_ = context_.pin("rx_tready", 1);
    Pin rx_tdata_ = context_.pin("rx_tdata", 128), rx_tlast_ = context_.pin("rx_tlast", 1);
    Pin rx_tuser_ = context_.pin("rx_tuser", 1), rx_tkeep_;
    bool paused_ = false, inside_ = false;  // of a frame that is sent

    void receive() {
        const Phit phit = in_.valid() ? in_.get() : Phit{};
        if (phit.flags & Phit::TOLD) paused_ = phit.flags & Phit::PAUSED;
        const bool beat = phit.flags & Phit::BEAT;
        rx_tvalid_.set(beat);
        if (!beat) return;
        if (!rx_tready_.high()) context_.fail("rx_tready must always be high");
        std::memcpy(rx_tdata_.data, phit.beat, Phit::BEAT_BYTES);
        const bool last = phit.flags & Phit::LAST, error = phit.flags & Phit::ERROR;
        rx_tlast_.set(last);
        rx_tuser_.set(error);
        context_.counters[2] += last;
        context_.counters[3] += Phit::BEAT_BYTES;
        context_.counters[4] += last && error;
    }
    void transmit() {
        const bool open = inside_ || !paused_, valid = tvalid_.high();
        tready_.set(open);
        Phit phit;
        if (valid && open) {
            if (tkeep_.get() != 0xFFFF) context_.fail("tx_tkeep must be all ones");
            std::memcpy(phit.beat, tdata_.data, Phit::BEAT_BYTES);
            const bool last = tlast_.high();
            phit.flags = Phit::BEAT | (last ? Phit::LAST : 0) |
                         (last && tuser_.high() ? Phit::ERROR : 0);
            inside_ = !last;
            context_.counters[0] += last;
            context_.counters[1] += Phit::BEAT_BYTES;
        } else if (valid) {
            context_.counters[5]++;
        }
        out_.set(phit);
    }
};

}  // namespace mxlet
