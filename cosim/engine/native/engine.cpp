// C interface of the engine, called by cosim/engine/native.py.
#include <algorithm>
#include <cstdio>

#include "engine.hpp"

using namespace mxlet;

#define API extern "C" __attribute__((visibility("default")))

namespace {
// Every call that can fail returns -1 and leaves its message in the engine.
template <typename Body>
int64_t guarded(Engine* engine, Body body) {
    try {
        return body();
    } catch (const std::exception& error) {
        engine->message = error.what();
        return -1;
    }
}
Model& model_of(Engine* e, uint32_t die, uint32_t model) { return *e->dies.at(die)->models.at(model); }

// The pin of a model of a die or, if `part` counts past all models, of a device.
constexpr uint32_t DEVICES = 1u << 31;
Pin end_of(Engine* e, uint32_t die, uint32_t part, const char* port) {
    if (part < DEVICES) return model_of(e, die, part).pin(port);
    return e->contexts.at(part - DEVICES)->pin(port);
}

void same_width(const std::string& to, Pin a, const std::string& from, Pin b) {
    if (a.bits == b.bits && a.input && !b.input) return;
    throw std::invalid_argument("Port " + to + " (" + std::to_string(a.bits) + " bits) cannot be fed by " +
                                from + " (" + std::to_string(b.bits) + " bits)");
}
}  // namespace

API Engine* engine_new(uint64_t quantum, uint64_t reset_cycles) {
    try {
        return new Engine(quantum, reset_cycles);
    } catch (const std::exception&) {
        return nullptr;
    }
}
API void engine_delete(Engine* e) { delete e; }
API const char* engine_message(Engine* e) { return e->message.c_str(); }

API int64_t engine_die(Engine* e, const char* name) {
    return guarded(e, [&] {
        auto die = std::make_unique<Die>();
        die->name = name;
        die->hash = e->allocate_words(1);
        die->quiet = e->allocate_words(1);
        die->failure = static_cast<char*>(e->allocate(Context::FAILURE_BYTES));
        e->dies.push_back(std::move(die));
        return e->dies.size() - 1;
    });
}
API int64_t engine_second_clock(Engine* e, uint32_t die, uint64_t ticks, uint64_t per_cycles) {
    return guarded(e, [&] {
        e->dies.at(die)->ticks = ticks;
        e->dies.at(die)->per_cycles = per_cycles;
        return 0;
    });
}
API int64_t engine_model(Engine* e, uint32_t die, const char* name, const char* path) {
    return guarded(e, [&] {
        static std::map<std::string, std::unique_ptr<Library>> libraries;
        auto& library = libraries[path];
        if (!library) library = std::make_unique<Library>(path);
        auto model = std::make_unique<Model>(name, library.get());
        model->skipped = e->allocate_words(1);
        model->pin("rst").set(1);
        e->dies.at(die)->models.push_back(std::move(model));
        return e->dies[die]->models.size() - 1;
    });
}
API int64_t engine_copy(Engine* e, uint32_t die, uint32_t to, const char* to_port, uint32_t from,
                        const char* from_port, const char* guard) {
    return guarded(e, [&] {
        Model& target = model_of(e, die, to);
        Model& source = model_of(e, die, from);
        const Pin a = target.pin(to_port), b = source.pin(from_port);
        same_width(target.name + "." + to_port, a, source.name + "." + from_port, b);
        const uint8_t* when = *guard ? static_cast<uint8_t*>(source.pin(guard).data) : nullptr;
        target.copies.push_back({a.data, b.data, a.bytes(), when,
                                 target.late ? &source.runs : &target.runs});
        return 0;
    });
}
// Before its copies are named.
API int64_t engine_late(Engine* e, uint32_t die, uint32_t model) {
    return guarded(e, [&] { return model_of(e, die, model).late = true, 0; });
}
API int64_t engine_tie(Engine* e, uint32_t die, uint32_t model, const char* port, uint64_t value) {
    return guarded(e, [&] { return model_of(e, die, model).pin(port).set(value), 0; });
}
API int64_t engine_gate(Engine* e, uint32_t die, uint32_t model, const char* idle, int gated,
                        uint64_t linger) {
    return guarded(e, [&] {
        Model& m = model_of(e, die, model);
        if (*idle) m.idle = static_cast<uint8_t*>(m.pin(idle).data);
        m.gated = gated;
        m.linger = linger;
        return 0;
    });
}
API int64_t engine_break(Engine* e, uint32_t die, uint32_t model) {
    return guarded(e, [&] { return model_of(e, die, model).broken = true, 0; });
}
API int64_t engine_wake(Engine* e, uint32_t die, uint32_t model, uint32_t from, const char* port) {
    return guarded(e, [&] {
        const Pin pin = model_of(e, die, from).pin(port);
        for (uint32_t byte = 0; byte < pin.bytes(); byte++)
            model_of(e, die, model).wake.push_back(static_cast<uint8_t*>(pin.data) + byte);
        return 0;
    });
}
API int64_t engine_channel(Engine* e, const char* name, uint32_t from, uint32_t from_part,
                           const char* out_valid, const char* out_data, uint32_t to,
                           uint32_t to_part, const char* in_valid, const char* in_data,
                           uint64_t latency) {
    return guarded(e, [&] {
        auto channel = std::make_unique<Channel>();
        channel->name = name;
        channel->latency = latency;
        channel->slots = latency + e->quantum;
        channel->out_valid = end_of(e, from, from_part, out_valid);
        channel->out_data = end_of(e, from, from_part, out_data);
        channel->in_valid = end_of(e, to, to_part, in_valid);
        channel->in_data = end_of(e, to, to_part, in_data);
        same_width(in_valid, channel->in_valid, out_valid, channel->out_valid);
        same_width(in_data, channel->in_data, out_data, channel->out_data);
        channel->stride = (8 + channel->out_data.bytes() + 63) / 64 * 64;
        channel->ring = static_cast<uint8_t*>(e->allocate(channel->slots * channel->stride));
        channel->carried = e->allocate_words(1);
        channel->hash = e->dies[from]->hash;
        channel->busy = &e->dies[from]->busy;
        channel->number = e->dies[from]->outputs.size();
        e->channels.push_back(channel.get());
        e->dies[to]->inputs.push_back(channel.get());
        e->dies[from]->outputs.push_back(std::move(channel));
        return e->channels.size() - 1;
    });
}
API int64_t engine_device(Engine* e, uint32_t die, const char* kind, const char* name,
                          uint8_t* memory, uint64_t bytes, uint32_t second) {
    return guarded(e, [&] {
        Die& d = *e->dies.at(die);
        auto context = std::make_unique<Context>();
        context->name = d.name + "." + name;
        context->memory = memory;
        context->memory_bytes = bytes;
        context->second = second != 0;
        context->counters = e->allocate_words(Context::COUNTERS);
        context->mailbox = e->allocate_words(Context::MAILBOX);
        context->hash = d.hash;
        context->failure = d.failure;
        e->contexts.push_back(context.get());
        d.contexts.push_back(std::move(context));
        d.kinds.push_back(kind);
        return e->contexts.size() - 1;
    });
}
API int64_t engine_device_pin(Engine* e, uint32_t device, const char* role, uint32_t die,
                              uint32_t model, const char* port) {
    return guarded(e, [&] {
        e->contexts.at(device)->pins[role] = model_of(e, die, model).pin(port);
        e->contexts.at(device)->owner = &model_of(e, die, model);
        return 0;
    });
}
API int64_t engine_device_port(Engine* e, uint32_t device, const char* role, uint32_t bits,
                               uint32_t input) {
    return guarded(e, [&] { return e->contexts.at(device)->add_port(role, bits, input != 0), 0; });
}
API int64_t engine_device_parameter(Engine* e, uint32_t device, const char* key, uint64_t value) {
    return guarded(e, [&] { return e->contexts.at(device)->parameters[key] = value, 0; });
}
API int64_t engine_watch(Engine* e, uint32_t die, uint32_t model, const char* port) {
    return guarded(e, [&] {
        Watch watch{model_of(e, die, model).pin(port), e->allocate_words(1), e->allocate_words(1)};
        *watch.armed = 1;
        e->dies[die]->watches.push_back(watch);
        e->watches.push_back(watch);
        return e->watches.size() - 1;
    });
}
API int64_t engine_lane(Engine* e, uint32_t die, uint32_t model, const char* port, uint32_t number) {
    return guarded(e, [&] {
        Recorder& recorder = e->dies.at(die)->recorder;
        if (!recorder.events) {
            recorder.events = static_cast<Event*>(e->share(Recorder::CAPACITY * sizeof(Event)));
            recorder.count = e->allocate_words(1);
        }
        recorder.lanes.push_back({model_of(e, die, model).pin(port), number});
        return 0;
    });
}
API int64_t engine_waves(Engine* e, uint32_t die, uint32_t model, const char* path) {
    return guarded(e, [&] {
        e->dies.at(die)->waves.emplace_back(&model_of(e, die, model), path);
        return 0;
    });
}
API int64_t engine_start(Engine* e, uint32_t threads, uint32_t processes) {
    return guarded(e, [&] { return e->start(threads, processes), 0; });
}
API int64_t engine_stop(Engine* e) {
    return guarded(e, [&] { return e->stop(), 0; });
}
API int64_t engine_run(Engine* e, uint64_t limit, uint32_t mask) { return e->run(limit, mask); }

API uint64_t engine_cycle(Engine* e) { return e->control->cycle; }
API uint64_t engine_hash(Engine* e, uint32_t die) { return *e->dies[die]->hash; }
API const char* engine_failure(Engine* e, uint32_t die) { return e->dies[die]->failure; }
API uint64_t engine_carried(Engine* e, uint32_t channel) { return *e->channels[channel]->carried; }
API uint64_t engine_skipped(Engine* e, uint32_t die, uint32_t model) {
    return *model_of(e, die, model).skipped;
}
API uint64_t* engine_counters(Engine* e, uint32_t device) { return e->contexts[device]->counters; }
API uint64_t* engine_mailbox(Engine* e, uint32_t device) { return e->contexts[device]->mailbox; }
API void engine_arm(Engine* e, uint32_t watch, uint32_t armed) { *e->watches[watch].armed = armed; }
API uint64_t engine_watched(Engine* e, uint32_t watch) { return *e->watches[watch].value; }
API uint64_t engine_events(Engine* e, uint32_t die, Event** events) {
    Recorder& recorder = e->dies[die]->recorder;
    *events = recorder.events;
    return recorder.count ? *recorder.count : 0;
}
API int64_t engine_pid(Engine* e, uint32_t worker) {
    return worker < e->pids().size() ? e->pids()[worker] : -1;
}
