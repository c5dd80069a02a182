// A channel of fixed latency between two dies: the only way in which dies meet.
#pragma once
#include <algorithm>
#include <string>

#include "device.hpp"

namespace mxlet {

// The phit that die A shows after the edge of cycle t is on die B's pins at the edge of cycle
// t + latency. Slots are in shared memory. An end is a pin of a model or a
// device's own. Within a quantum of at most `latency` cycles the writer
// and the reader touch different slots, so no other synchronisation than the barrier is needed.
struct Channel {
    std::string name;
    uint64_t latency;
    uint64_t slots;
    Pin out_valid, out_data, in_valid, in_data;
    uint32_t stride;
    uint8_t* ring = nullptr;        // slots x stride bytes: valid in byte 0, data from byte 8
    uint64_t* carried = nullptr;    // phits so far, shared
    uint64_t* hash = nullptr;       // of the sending die
    uint32_t number = 0;            // among those that the die sends on
    uint64_t* busy = nullptr;       // of the sending die: the cycle in which its last phit arrives

    void send(uint64_t cycle) {
        uint8_t* slot = ring + cycle % slots * stride;
        slot[0] = out_valid.high();
        if (!slot[0]) return;
        const uint32_t bytes = out_data.bytes();
        std::memcpy(slot + 8, out_data.data, bytes);
        ++*carried;
        *busy = std::max(*busy, cycle + latency);
        uint64_t h = mix(*hash, cycle << 16 | number);
        for (uint32_t i = 0; i < bytes; i += 8) {
            uint64_t word = 0;
            std::memcpy(&word, slot + 8 + i, bytes - i < 8 ? bytes - i : 8);
            h = mix(h, word);
        }
        *hash = h;
    }
    void receive(uint64_t cycle) const {
        bool valid = false;
        if (cycle >= latency) {
            const uint8_t* slot = ring + (cycle - latency) % slots * stride;
            valid = slot[0];
            if (valid) std::memcpy(in_data.data, slot + 8, in_data.bytes());
        }
        *static_cast<uint8_t*>(in_valid.data) = valid;
    }
};

}  // namespace mxlet
