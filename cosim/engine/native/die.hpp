// A die: models that exchange registered ports every cycle, its channels and its devices.
#pragma once
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "channel.hpp"
#include "device.hpp"
#include "model.hpp"

namespace mxlet {

struct Event {  // a recorded port changed
    uint64_t cycle;
    uint32_t lane;
    uint32_t value;
};

struct Recorder {
    static constexpr uint64_t CAPACITY = 1ull << 26;  // events; the memory is reserved, not used
    struct Lane {
        Pin pin;
        uint32_t number;
        uint64_t last = 0;
    };
    std::vector<Lane> lanes;
    Event* events = nullptr;    // shared
    uint64_t* count = nullptr;  // shared; grows past CAPACITY when events were dropped

    void record(uint64_t cycle) {
        for (Lane& lane : lanes) {
            const uint64_t value = lane.pin.get();
            if (value == lane.last) continue;
            lane.last = value;
            if (*count < CAPACITY) events[*count] = {cycle, lane.number, static_cast<uint32_t>(value)};
            ++*count;
        }
    }
};

struct Watch {
    Pin pin;
    uint64_t* value;  // shared; as it stood at the last quantum boundary
    uint64_t* armed;  // shared; whether it stops a run, changed between runs
};

struct Die {
    std::string name;
    std::vector<std::unique_ptr<Model>> models;
    std::vector<Group> groups;
    std::vector<std::unique_ptr<Channel>> outputs;
    std::vector<Channel*> inputs;
    std::vector<std::unique_ptr<Context>> contexts;
    std::vector<std::string> kinds;
    std::vector<std::unique_ptr<Device>> devices;
    std::vector<Watch> watches;
    std::vector<std::pair<Model*, std::string>> waves;
    Recorder recorder;
    uint64_t busy = 0;             // cycle in which the last phit that left arrives
    uint64_t* hash = nullptr;      // shared: of everything that left the die, with its cycles
    uint64_t* quiet = nullptr;     // shared: nothing happened in the last quantum
    uint64_t* evaluations = nullptr;  // shared
    char* failure = nullptr;       // shared
    uint64_t ticks = 0, per_cycles = 1;  // of the second clock

    // Whether the second clock has an edge in this cycle.
    bool tick(uint64_t cycle) const {
        return (cycle + 1) * ticks / per_cycles != cycle * ticks / per_cycles;
    }

    void step(uint64_t cycle, uint64_t reset_cycles) {
        if (cycle == reset_cycles)
            for (auto& model : models) model->pin("rst").set(0);
        for (Channel* channel : inputs) channel->receive(cycle);
        const bool second = tick(cycle), reset = cycle < reset_cycles;
        if (!reset) step_devices(cycle, second, false);  // what they say may wake a model
        for (auto& model : models) model->runs = reset || !model->sleeps(second);
        if (!reset) step_devices(cycle, second, true);
        const uint64_t now = reset ? 0 : cycle - reset_cycles;
        for (Group& group : groups)  // all inputs first: they are outputs of the former edge
            if (!group.late) group.take_inputs();
        for (Group& group : groups) {
            if (group.late) group.take_inputs();
            group.cycle(cycle, now, second);
        }
        for (auto& channel : outputs) channel->send(cycle);
        if (!recorder.lanes.empty()) recorder.record(cycle);
    }

    // Once all models are there: those of one library together, and each late one alone, last.
    void form_groups() {
        for (bool late : {false, true})
            for (auto& model : models) {
                if (model->late != late) continue;
                auto same = std::find_if(groups.begin(), groups.end(), [&](const Group& group) {
                    return !late && group.library == model->library;
                });
                if (same == groups.end())
                    same = groups.insert(same, Group{model->library, late, {}, {}});
                same->models.push_back(model.get());
            }
    }

    // Those of the first clock or those of the second. None in reset: a bus master must be silent
    // then (AXI4, A3.1.2).
    void step_devices(uint64_t cycle, bool second, bool of_second) {
        for (size_t i = 0; i < devices.size(); i++) {
            const Context& context = *contexts[i];
            if (context.second != of_second) continue;
            if (of_second) {
                if (!second || !context.owner->runs) continue;
                if (context.owner->missed) devices[i]->skip(context.owner->missed);
            }
            devices[i]->step(cycle);
        }
    }

    void quantum(uint64_t start, uint64_t cycles, uint64_t reset_cycles) {
        for (uint64_t cycle = start; cycle < start + cycles; cycle++) step(cycle, reset_cycles);
        for (Watch& watch : watches) *watch.value = watch.pin.get();
        bool calm = busy < start + cycles;
        for (auto& model : models)
            calm &= (!model->idle || *model->idle) && !(model->rest_pin.data && model->runs);
        for (auto& device : devices) calm &= device->idle();
        *quiet = calm;
    }
};

}  // namespace mxlet
