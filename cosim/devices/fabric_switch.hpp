// A switch of the fabric: frames in by one port, out by another, nothing without a bound.
#pragma once
#include <algorithm>
#include <unordered_map>

#include "fabric_port.hpp"

namespace mxlet {

// Stores a frame, finds its port by the destination, and sends it `forward_cycles` after its last
// beat came, or when those before it have gone: each port sends a beat a cycle.
//
// Without `pause`, `buffer_bytes` bound the queue of each output, and what does not fit is dropped.
// With it they bound what is there from each input: at more than `pause_bytes<port>` the sender is
// asked to pause, at half of it to go on, and what comes until the sender knows fits. A frame that
// finds more than `mark_bytes` in its queue is marked; 0: none is.
//
// Faults come to frames as they come in. A link that is down loses all that is sent on it either
// way, and what waits for it; a frame that is on its way out is ended with an error. While the
// switch restarts all links are down, and it loses what it holds.
//
// Parameters: `ports`, `stations`, `station<n>` (48 bits MAC address, then the port), `seed`,
// `longest_frame` (byte), and those above. Memory: PortWords of each port, then one whose down
// cycles are those of the restart. Ports: `in<n>` and `out<n>`, ends of cables.
class Switch : public Device {
  public:
    explicit Switch(const Context& context)
        : context_(context), buffer_(given("buffer_bytes")), mark_(given("mark_bytes")),
          longest_(given("longest_frame")), forward_(given("forward_cycles")), seed_(given("seed")),
          pause_(given("pause") != 0) {
        const uint64_t ports = given("ports");
        if (context.memory_bytes < (ports + 1) * sizeof(PortWords))
            throw std::invalid_argument("Device " + context.name + " must have more memory");
        PortWords* words = reinterpret_cast<PortWords*>(context.memory);
        for (uint64_t n = 0; n < ports; n++) {
            ports_.emplace_back(context, n, words + n);
            pause_at_.push_back(pause_ ? given("pause_bytes" + std::to_string(n)) : ~0ull);
        }
        whole_ = words + ports;
        for (uint64_t n = 0; n < given("stations"); n++) {
            const uint64_t station = given("station" + std::to_string(n));
            routes_[station & 0xFFFFFFFFFFFF] = station >> 48;
        }
    }

    void step(uint64_t cycle) override {
        const bool dead = whole_->down(cycle);
        if (dead && !dead_) {
            for (auto& [due, frame] : crossing_) drop(frame, frame.from, &PortWords::restarted);
            crossing_.clear();
        }
        dead_ = dead;
        for (uint32_t n = 0; n < ports_.size(); n++) {
            const bool down = dead || ports_[n].words->down(cycle);
            if (down && !ports_[n].down) go_down(n);
            ports_[n].down = down;
            if (ports_[n].in.valid()) receive(n, cycle);
        }
        while (!crossing_.empty() && crossing_.begin()->first <= cycle) {
            enqueue(crossing_.begin()->second);
            crossing_.erase(crossing_.begin());
        }
        for (uint32_t n = 0; n < ports_.size(); n++) transmit(n);
    }
    bool idle() const override {
        for (const SwitchPort& port : ports_)
            if (port.inside || !port.queue.empty() || !port.told) return false;
        return crossing_.empty();
    }

  private:
    enum Purpose : uint32_t { LOSS, DUPLICATE, CORRUPT, BITS, BIT, REORDER = BIT + 3 };
    const Context& context_;
    uint64_t buffer_, mark_, longest_, forward_, seed_;
    bool pause_, dead_ = false;
    std::deque<SwitchPort> ports_;
    std::vector<uint64_t> pause_at_;
    PortWords* whole_ = nullptr;
    std::unordered_map<uint64_t, uint32_t> routes_;
    std::multimap<uint64_t, Frame> crossing_;  // by the cycle in which they reach their queue

    uint64_t given(const std::string& key) const {
        auto found = context_.parameters.find(key);
        if (found == context_.parameters.end())
            throw std::invalid_argument("Device " + context_.name + " must be given " + key);
        return found->second;
    }
    // Counted at the port where it happened.
    void drop(const Frame& frame, uint32_t at, Cause cause) {
        ports_[at].words->*cause += 1;
        ports_[frame.from].held -= frame.bytes();
    }
    void spoil(SwitchPort& port, Cause cause) {
        if (port.spoiled) return;
        port.spoiled = true;
        port.words->*cause += 1;
        port.held -= port.arriving.bytes();
        port.arriving.words.clear();
    }

    void receive(uint32_t number, uint64_t cycle) {
        SwitchPort& port = ports_[number];
        PortWords& words = *port.words;
        const Phit phit = port.in.get();
        if (!(phit.flags & Phit::BEAT)) return;
        words.in_bytes += Phit::BEAT_BYTES;
        if (!port.inside) {
            port.inside = true;
            port.spoiled = false;
            words.in_frames++;
        }
        if (port.down) spoil(port, dead_ ? &PortWords::restarted : &PortWords::link_down);
        if (port.arriving.bytes() >= longest_) spoil(port, &PortWords::wrong);
        if (pause_ && port.held + Phit::BEAT_BYTES > buffer_) spoil(port, &PortWords::overflowed);
        if (!port.spoiled) {
            port.arriving.words.insert(port.arriving.words.end(), phit.beat, phit.beat + 2);
            port.held += Phit::BEAT_BYTES;
            words.longest_held = std::max(words.longest_held, port.held);
        }
        if (!(phit.flags & Phit::LAST)) return;
        port.inside = false;
        if (phit.flags & Phit::ERROR) spoil(port, &PortWords::wrong);
        if (!port.spoiled) accept(number, cycle);
    }
    void accept(uint32_t number, uint64_t cycle) {
        SwitchPort& port = ports_[number];
        PortWords& words = *port.words;
        const FrameDice dice(seed_, number, words.in_frames);
        if (dice.chance(LOSS, words.loss)) return spoil(port, &PortWords::lost);
        Frame frame = std::move(port.arriving);
        port.arriving.words.clear();
        frame.from = number;
        if (dice.chance(CORRUPT, words.corrupt)) {
            words.corrupted++;
            corrupt(frame, dice);
        }
        uint64_t due = cycle + forward_;
        if (dice.chance(REORDER, words.reorder)) {
            words.reordered++;
            due += words.reorder_cycles;
        }
        if (dice.chance(DUPLICATE, words.duplicate)) {
            words.duplicated++;
            port.held += frame.bytes();
            crossing_.emplace(cycle + forward_, frame);
        }
        crossing_.emplace(due, std::move(frame));
    }
    // One to three different bits.
    static void corrupt(Frame& frame, const FrameDice& dice) {
        const uint64_t bits = 8 * frame.bytes(), count = 1 + dice.draw(BITS) % 3;
        uint64_t chosen[3];
        for (uint64_t n = 0; n < count; n++) {
            chosen[n] = dice.draw(BIT + n) % bits;
            while (std::find(chosen, chosen + n, chosen[n]) != chosen + n)
                chosen[n] = (chosen[n] + 1) % bits;
            frame.flip(chosen[n]);
        }
    }

    void enqueue(Frame& frame) {
        auto route = routes_.find(frame.destination());
        if (route == routes_.end()) return drop(frame, frame.from, &PortWords::unknown);
        SwitchPort& port = ports_[route->second];
        if (port.down) return drop(frame, route->second, &PortWords::link_down);
        if (!pause_ && port.queued + frame.bytes() > buffer_)
            return drop(frame, route->second, &PortWords::overflowed);
        if (mark_ && port.queued > mark_) {
            frame.mark();
            port.words->marked++;
        }
        port.queued += frame.bytes();
        port.words->longest_queue = std::max(port.words->longest_queue, port.queued);
        port.queue.push_back(std::move(frame));
    }

    void go_down(uint32_t number) {
        SwitchPort& port = ports_[number];
        const Cause cause = dead_ ? &PortWords::restarted : &PortWords::link_down;
        port.cut = port.sent != 0;
        for (const Frame& frame : port.queue) drop(frame, number, cause);
        port.queue.clear();
        port.queued = port.sent = 0;
        if (port.inside) spoil(port, cause);
        if (port.paused) port.told = false;
        port.paused = false;  // a cable without a signal asks for nothing
    }
    void transmit(uint32_t number) {
        SwitchPort& port = ports_[number];
        Phit phit;
        if (!port.down && pause_) control(port, pause_at_[number]);
        if (!port.told) {
            phit.flags = Phit::TOLD | (port.paused ? Phit::PAUSED : 0);
            port.told = true;
        }
        port.words->paused_cycles += port.paused;
        if (port.cut) {
            phit.flags |= Phit::BEAT | Phit::LAST | Phit::ERROR;
            port.cut = false;
        } else if (!port.queue.empty()) {
            send_beat(port, phit);
        }
        port.out.set(phit);
    }
    static void control(SwitchPort& port, uint64_t limit) {
        const bool pause = port.held > (port.paused ? limit / 2 : limit);
        if (pause == port.paused) return;
        port.paused = pause;
        port.told = false;
        port.words->pauses += pause;
    }
    void send_beat(SwitchPort& port, Phit& phit) {
        const Frame& frame = port.queue.front();
        std::memcpy(phit.beat, &frame.words[2 * port.sent++], Phit::BEAT_BYTES);
        phit.flags |= Phit::BEAT;
        port.words->out_bytes += Phit::BEAT_BYTES;
        if (2 * port.sent < frame.words.size()) return;
        phit.flags |= Phit::LAST;
        port.words->out_frames++;
        port.queued -= frame.bytes();
        ports_[frame.from].held -= frame.bytes();
        port.queue.pop_front();
        port.sent = 0;
    }
};

}  // namespace mxlet
