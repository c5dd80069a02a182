// A port of a switch: what Python sets and reads of it, its faults, its frames.
#pragma once
#include <deque>
#include <vector>

#include "fabric_link.hpp"

namespace mxlet {

// Words of the switch's memory that a port has: settings, then counters. cosim/fabric.py has the
// same order.
struct PortWords {
    // Chances of a frame that comes in, of 2^32; how long a frame is held back that others overtake.
    uint64_t loss, duplicate, reorder, corrupt, reorder_cycles;
    // Cycles in which the link is down: `down_cycles` from `down_from` on, again after each
    // `down_period`, if that is not 0.
    uint64_t down_from, down_cycles, down_period;
    uint64_t unused[8];
    // Frames by their first beat, bytes by what came or went.
    uint64_t in_frames, in_bytes, out_frames, out_bytes;
    uint64_t lost, overflowed, link_down, restarted, unknown, wrong;  // frames dropped, by cause
    uint64_t duplicated, reordered, corrupted, marked;
    uint64_t longest_queue, longest_held;   // of bytes for this port, and from it
    uint64_t pauses, paused_cycles;         // asked of the sender
    uint64_t unused_counters[30];

    static bool within(uint64_t cycle, uint64_t from, uint64_t cycles, uint64_t period) {
        if (!cycles || cycle < from) return false;
        const uint64_t since = cycle - from;
        return (period ? since % period : since) < cycles;
    }
    bool down(uint64_t cycle) const { return within(cycle, down_from, down_cycles, down_period); }
};
static_assert(sizeof(PortWords) == 64 * 8);

using Cause = uint64_t PortWords::*;  // why a frame was dropped: the counter of these

struct Frame {
    std::vector<uint64_t> words;  // two a beat
    uint32_t from = 0;            // port that it came in by

    uint64_t bytes() const { return 8 * words.size(); }
    uint64_t destination() const { return words[0] & 0xFFFFFFFFFFFF; }
    void flip(uint64_t bit) { words[bit / 64] ^= 1ull << bit % 64; }
    void mark() {  // byte 23, see header_layout of rtl/net/interfaces.py
        if (words.size() > 2) reinterpret_cast<uint8_t*>(words.data())[23] = 1;
    }
};

// Random numbers of one frame of one port: a function of seed, port and number of the frame alone.
class FrameDice {
  public:
    FrameDice(uint64_t seed, uint32_t port, uint64_t frame)
        : key_(scramble(scramble(scramble(seed) ^ port) ^ frame)) {}

    uint64_t draw(uint32_t purpose) const { return scramble(key_ ^ purpose); }
    bool chance(uint32_t purpose, uint64_t rate) const { return draw(purpose) >> 32 < rate; }

  private:
    uint64_t key_;

    // Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    static uint64_t scramble(uint64_t x) {
        x += 0x9E3779B97F4A7C15ull;
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
        return x ^ (x >> 31);
    }
};

struct SwitchPort {
    CableEnd in, out;
    PortWords* words;
    // The frame that comes in, from its first beat to its last; `spoiled`: it is dropped already.
    Frame arriving;
    bool inside = false, spoiled = false;
    uint64_t held = 0;           // bytes from this port that are in the switch
    // Frames that go out, the first one as far as `sent` beats.
    std::deque<Frame> queue;
    uint64_t queued = 0, sent = 0;
    bool cut = false;            // end the frame that is being sent with an error
    bool down = false;
    bool paused = false, told = true;  // what is asked of the sender, and whether it knows

    SwitchPort(const Context& context, uint32_t number, PortWords* words)
        : in(context, "in" + std::to_string(number)), out(context, "out" + std::to_string(number)),
          words(words) {}
};

}  // namespace mxlet
