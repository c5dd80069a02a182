// One Verilated model, and the copies that bring its neighbours' outputs to its inputs.
#pragma once
#include <dlfcn.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "device.hpp"

namespace mxlet {

struct LibraryPort {
    const char* name;
    uint32_t bits;
    uint32_t input;
};

// The C interface of a model library, see cosim/build/include/glue.cpp.
struct Library {
    void* (*create)();
    void* (*port)(void*, uint32_t);
    void (*cycle)(void* const*, uint32_t, uint64_t, uint32_t);
    int (*waves)(void*, const char*);
    void (*destroy)(void*);
    uint32_t (*port_count)();
    const LibraryPort* (*ports)();

    explicit Library(const std::string& path) {
        void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (!handle) throw std::runtime_error(dlerror());
        auto find = [&](const char* symbol, auto& into) {
            into = reinterpret_cast<std::decay_t<decltype(into)>>(dlsym(handle, symbol));
            if (!into) throw std::runtime_error(path + " has no " + symbol);
        };
        find("model_create", create);
        find("model_port", port);
        find("model_cycle", cycle);
        find("model_waves", waves);
        find("model_destroy", destroy);
        find("model_port_count", port_count);
        find("model_ports", ports);
    }
};

struct Copy {
    void* to;
    const void* from;
    uint32_t bytes;
    const uint8_t* guard;  // copy only while this byte is not zero; null: always
    const bool* changed;   // and only while this holds: the source was evaluated

    void apply() const {
        if (!*changed || (guard && !*guard)) return;
        if (bytes == 1) {
            *static_cast<uint8_t*>(to) = *static_cast<const uint8_t*>(from);
        } else {
            std::memcpy(to, from, bytes);
        }
    }
};

struct Model {
    std::string name;
    Library* library;
    void* handle;
    std::unordered_map<std::string, Pin> pins;
    std::vector<Copy> copies;
    const uint8_t* idle = nullptr;      // output: nothing more will change without one of `wake`
    std::vector<const uint8_t*> wake;   // valid and pulse bits, of inputs and of own outputs
    bool gated = false;
    uint64_t linger = 0, calm = 0;      // cycles that are evaluated, and were seen, after the last
    bool runs = true;                   // in this cycle
    bool late = false;                  // evaluated after its neighbours, with their new outputs
    // Edges of the second clock that a sleeping model has missed, where it wants to be told, and how
    // many it may miss at most.
    uint64_t missed = 0;
    Pin missed_pin, rest_pin;
    Pin now_pin;                        // input: cycles since the reset
    bool broken = false;                // outputs are random
    uint64_t random = 1;
    uint64_t* skipped = nullptr;        // cycles that were not evaluated

    Model(const std::string& name, Library* library)
        : name(name), library(library), handle(library->create()) {
        for (uint32_t i = 0; i < library->port_count(); i++) {
            const LibraryPort& port = library->ports()[i];
            pins[port.name] = Pin{library->port(handle, i), port.bits, port.input != 0};
        }
        if (pins.count("now")) now_pin = pins["now"];
        if (pins.count("hbm_rest")) {
            rest_pin = pins["hbm_rest"];
            missed_pin = pins["hbm_skipped"];
        }
    }
    ~Model() { library->destroy(handle); }
    Model(const Model&) = delete;

    Pin pin(const std::string& port) const {
        auto found = pins.find(port);
        if (found == pins.end())
            throw std::invalid_argument("Model " + name + " has no port " + port);
        return found->second;
    }
    // Whether this cycle, with an edge of the second clock or not, needs no evaluation: a function
    // of the die's state alone.
    bool sleeps(bool second) {
        if (broken || !gated) return false;
        if ((idle && !*idle) || pulsed()) calm = 0; else calm++;
        if (calm <= linger) return false;
        if (second && rest_pin.data) {
            if (missed == rest_pin.get()) return false;
            missed++;
        }
        return true;
    }
    // Asked of all models in every cycle: without a branch for each of the bits.
    bool pulsed() const {
        uint8_t any = 0;
        for (const uint8_t* pulse : wake) any |= *pulse;
        return any;
    }
    void take_inputs() const {
        if (!runs) return;
        for (const Copy& copy : copies) copy.apply();
    }
    void talk_nonsense() {
        for (uint32_t i = 0; i < library->port_count(); i++) {
            const LibraryPort& port = library->ports()[i];
            if (port.input) continue;
            const Pin pin{library->port(handle, i), port.bits, false};
            for (uint32_t at = 0; at < pin.bits; at += 8) {
                random = mix(random, i + 1);
                const uint32_t left = pin.bits - at;
                static_cast<uint8_t*>(pin.data)[at / 8] = random >> 32 & (left < 8 ? (1u << left) - 1 : 255);
            }
        }
    }
    void cycle(uint64_t number, bool second) {  // of this model alone
        library->cycle(&handle, 1, number, second);
    }
    void set_clocks(uint64_t now, bool second) {
        if (now_pin.data) now_pin.set(now);
        if (missed_pin.data) missed_pin.set(missed);
        if (second) missed = 0;
    }
};

// Models of one library that are evaluated together: none needs what another one of them puts out
// in the same cycle.
struct Group {
    Library* library;
    bool late;
    std::vector<Model*> models;
    std::vector<void*> running;  // handles, in this cycle

    void take_inputs() {
        for (Model* model : models) model->take_inputs();
    }
    void cycle(uint64_t number, uint64_t now, bool second) {
        running.clear();
        for (Model* model : models) {
            if (!model->runs) {
                ++*model->skipped;
            } else if (model->broken) {
                model->talk_nonsense();
            } else {
                model->set_clocks(now, second);
                running.push_back(model->handle);
            }
        }
        if (!running.empty()) library->cycle(running.data(), running.size(), number, second);
    }
};

}  // namespace mxlet
