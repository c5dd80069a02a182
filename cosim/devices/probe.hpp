// Hashes ports of a die every cycle, and keeps the hash of each cycle: finds the first difference.
#pragma once
#include <vector>

#include "device.hpp"

namespace mxlet {

// Pins: any outputs. Memory: one 64-bit word a cycle, as far as it goes. Counter 0: cycles seen.
class Probe : public Device {
  public:
    explicit Probe(const Context& context) : context_(context) {}

    void step(uint64_t cycle) override {
        uint64_t hash = cycle;
        for (const auto& [role, pin] : context_.pins) {
            const uint8_t* data = static_cast<const uint8_t*>(pin.data);
            for (uint32_t i = 0; i < pin.bytes(); i += 8) {
                uint64_t word = 0;
                std::memcpy(&word, data + i, pin.bytes() - i < 8 ? pin.bytes() - i : 8);
                hash = mix(hash, word);
            }
        }
        if (8 * cycle + 8 <= context_.memory_bytes) std::memcpy(context_.memory + 8 * cycle, &hash, 8);
        *context_.hash = mix(*context_.hash, hash);
        context_.counters[0]++;
    }

  private:
    const Context& context_;
};

}  // namespace mxlet
