// What a device model (host memory, HBM stack, ...) sees of its die and of the engine.
#pragma once
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace mxlet {

// A port of a model: `data` holds ceil(bits / 8) bytes in the host's byte order, padded to a
// whole 1, 2, 4, 8 or 4n byte number, as Verilator stores it. Unused upper bits are zero.
struct Pin {
    void* data = nullptr;
    uint32_t bits = 0;
    bool input = false;  // an input of the die, driven by the device

    uint32_t bytes() const {
        return bits <= 8 ? 1 : bits <= 16 ? 2 : bits <= 32 ? 4 : bits <= 64 ? 8 : (bits + 31) / 32 * 4;
    }
    uint64_t get() const {
        uint64_t value = 0;
        std::memcpy(&value, data, bytes() < 8 ? bytes() : 8);
        return value;
    }
    void set(uint64_t value) const { std::memcpy(data, &value, bytes() < 8 ? bytes() : 8); }
    bool high() const { return *static_cast<const uint8_t*>(data) != 0; }
};

struct Model;

inline uint64_t mix(uint64_t hash, uint64_t value) {
    hash = (hash ^ value) * 0x9E3779B97F4A7C15ull;
    return hash ^ (hash >> 29);
}

// Everything a device is given. `memory`, `counters` and `mailbox` are shared between processes;
// all other state of a device lives in the one worker that steps its die.
struct Context {
    std::string name;                           // "io.host", for messages
    std::map<std::string, Pin> pins;            // by role, as named in the die's description
    std::map<std::string, uint64_t> parameters;
    uint8_t* memory = nullptr;
    uint64_t memory_bytes = 0;
    uint64_t* counters = nullptr;               // COUNTERS words, read by Python
    uint64_t* mailbox = nullptr;                // MAILBOX words, written and read by Python
    uint64_t* hash = nullptr;                   // of the die's traffic
    char* failure = nullptr;                    // FAILURE_BYTES, first one counts
    bool second = false;                        // stepped at the edges of the second clock only
    const Model* owner = nullptr;               // whose pins it has, the last of them
    std::vector<std::unique_ptr<uint64_t[]>> ports;  // memory of pins of its own, for channels

    static constexpr int COUNTERS = 64, MAILBOX = 16, FAILURE_BYTES = 512;

    Pin pin(const std::string& role, uint32_t bits = 0) const {
        auto found = pins.find(role);
        if (found == pins.end())
            throw std::invalid_argument("Device " + name + " must be given a port " + role);
        if (bits && found->second.bits != bits)
            throw std::invalid_argument("Port " + role + " of device " + name + " must have " +
                                        std::to_string(bits) + " bits, not " +
                                        std::to_string(found->second.bits));
        return found->second;
    }
    // A pin of the device's own: `input` if a channel drives it.
    void add_port(const std::string& role, uint32_t bits, bool input) {
        Pin pin{nullptr, bits, input};
        ports.push_back(std::make_unique<uint64_t[]>((pin.bytes() + 7) / 8));
        pin.data = ports.back().get();
        if (!pins.emplace(role, pin).second)
            throw std::invalid_argument("Device " + name + " has two ports " + role);
    }
    uint64_t parameter(const std::string& key, uint64_t fallback) const {
        auto found = parameters.find(key);
        return found == parameters.end() ? fallback : found->second;
    }
    // Stops the simulation at the next quantum boundary; Python raises this message.
    void fail(const std::string& message) const {
        if (!failure[0]) std::strncpy(failure, (name + ": " + message).c_str(), FAILURE_BYTES - 1);
    }
};

// A device is stepped once a cycle of its clock, before the clock edge. It sees the die's outputs as they stand
// since the former edge and drives the inputs that this edge samples. It may drive an input as a
// function of the outputs that it sees: no die has a path from an input to an output.
class Device {
  public:
    virtual ~Device() = default;
    virtual void step(uint64_t cycle) = 0;
    virtual bool idle() const { return true; }  // nothing under way
    // So many of its cycles pass without `step`, as the model that it is at sleeps.
    virtual void skip(uint64_t) {}
};

}  // namespace mxlet
