// Traffic on a Verilated mesh: reads what to send from standard input, prints what arrived.
//
// Input, words apart by spaces:
//   model.so  warm-up cycles  measured cycles  seed
//   bits of a packet, first bit of its body (64 bits: cycle 32, source 12, number 20)
//   packets: how many, then for each the words of 32 bits, lowest first (hexadecimal), and how
//     many nodes it is delivered to, and their numbers
//   targets: how many, then for each its port and how often of 256 cycles it takes
//   sources: how many, then for each its port, its load (0 to 2^32 - 1: flits a cycle x 2^32, or
//     4294967296: always), how many packets it chooses from, and their numbers
// Output: one line of numbers, see the end; a fault ends the program with status 1 and a sentence.
#include <algorithm>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <deque>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "model.hpp"

namespace {
using mxlet::Library;
using mxlet::Pin;

struct Random {     // xorshift64*
    uint64_t state;
    uint32_t next() {
        state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
        return uint32_t(state * 0x2545F4914F6CDD1DULL >> 32);
    }
    uint32_t below(uint32_t n) { return uint64_t(next()) * n >> 32; }
};

double processor_seconds() {    // of this thread: other work of the machine does not count
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return time.tv_sec + 1e-9 * time.tv_nsec;
}

struct Packet {
    std::vector<uint32_t> words;
    std::vector<uint32_t> targets;
};

struct Waiting {
    uint32_t packet;
    uint32_t since;
};

struct Port {
    uint8_t *valid, *ready;
    uint8_t* payload;
    uint64_t rate;
    std::vector<uint32_t> choices;      // of a source
    std::deque<Waiting> queue;
    uint64_t generated = 0, delivered = 0;
};

struct Fault {
    std::string what;
};

class Traffic {
public:
    Traffic() {
        std::string path;
        std::cin >> path >> warm >> measured >> random.state >> bits >> body;
        random.state = random.state * 0x9E3779B97F4A7C15ULL + 1;
        library = std::make_unique<Library>(path);
        model = std::make_unique<mxlet::Model>("mesh", library.get());
        packets.resize(number());
        for (Packet& packet : packets) {
            packet.words.resize((bits + 31) / 32);
            for (uint32_t& word : packet.words) std::cin >> std::hex >> word >> std::dec;
            packet.targets.resize(number());
            for (uint32_t& target : packet.targets) target = number();
        }
        read(targets, "");
        read(sources, "choices");
        last.resize(sources.size() * targets.size(), -1);
        sent.resize(sources.size());
        reset();
    }

    void run() {
        for (cycle = 0; cycle < warm + measured; cycle++) {
            if (cycle == warm) start();
            step(true);
        }
        finish();
        uint64_t limit = cycle + 100000;
        while (under_way && cycle < limit) step(false), cycle++;
        if (under_way) throw Fault{std::to_string(under_way) + " deliveries never came"};
    }

    void print() const {
        uint64_t least = ~0ULL, generated = 0;
        for (const Port& source : sources) {
            if (source.rate) least = std::min(least, source.delivered);
            generated += source.generated;
        }
        std::printf("%llu %llu %llu %.9f %llu %llu", (unsigned long long)generated,
                    (unsigned long long)arrived, (unsigned long long)least, seconds,
                    (unsigned long long)latency_sum, (unsigned long long)latency_max);
        for (size_t i = 0; i < counted.size(); i++) std::printf(" %u", counted[i]);
        std::printf("\n");
    }

private:
    uint64_t number() {
        uint64_t value;
        if (!(std::cin >> value)) throw Fault{"the input ends too early"};
        return value;
    }

    template <typename T>
    T* pin(const std::string& name) {
        return static_cast<T*>(model->pin(name).data);
    }

    void read(std::vector<Port>& ports, const std::string& choices) {
        ports.resize(number());
        for (Port& port : ports) {
            std::string name;
            std::cin >> name;
            port.valid = pin<uint8_t>(name + "__valid");
            port.ready = pin<uint8_t>(name + "__ready");
            port.payload = pin<uint8_t>(name + "__payload");
            port.rate = number();
            if (choices.empty()) continue;
            port.choices.resize(number());
            for (uint32_t& choice : port.choices) choice = number();
        }
    }

    void reset() {
        uint8_t* rst = pin<uint8_t>("rst");
        *rst = 1;
        for (int i = 0; i < 4; i++) model->cycle(0, false);
        *rst = 0;
        model->cycle(0, false);
    }

    std::vector<uint32_t> counters() {
        if (!model->pins.count("counters")) return {};
        Pin found = model->pin("counters");
        std::vector<uint32_t> words(found.bits / 32);
        std::memcpy(words.data(), found.data, found.bits / 8);
        return words;
    }

    void start() {
        before = counters();
        arrived = latency_sum = latency_max = 0;
        seconds = 0;
        for (Port& source : sources) source.generated = source.delivered = 0;
        measuring = true;
        double begin = processor_seconds();
        for (int i = 0; i < 9999; i++) processor_seconds();
        clock_seconds = (processor_seconds() - begin) / 10000;
    }

    void finish() {
        counted = counters();
        for (size_t i = 0; i < counted.size(); i++) counted[i] -= before[i];
        measuring = false;
        for (Port& source : sources) source.queue.clear();   // what was not offered yet
    }

    void generate(Port& source) {
        if (!source.rate) return;
        bool always = source.rate >> 32;
        if (always ? source.queue.empty() : random.next() < source.rate) {
            uint32_t choice = source.choices[random.below(uint32_t(source.choices.size()))];
            source.queue.push_back({choice, uint32_t(cycle)});
            source.generated += measuring;
        }
    }

    void offer(uint32_t index, bool more) {
        Port& source = sources[index];
        if (*source.valid && taken[index]) *source.valid = 0;
        if (more) generate(source);
        if (*source.valid || source.queue.empty()) return;
        Waiting waiting = source.queue.front();
        source.queue.pop_front();
        const Packet& packet = packets[waiting.packet];
        uint64_t number = sent[index].size();
        uint64_t stamp = number << 44 | uint64_t(index) << 32 | waiting.since;
        sent[index].push_back(waiting.packet);
        std::vector<uint32_t> words = packet.words;
        for (int bit = 0; bit < 64; bit++)
            if (stamp >> bit & 1) words[(body + bit) / 32] |= 1u << (body + bit) % 32;
        std::memcpy(source.payload, words.data(), (bits + 7) / 8);
        *source.valid = 1;
        under_way += packet.targets.size();
    }

    void take(uint32_t index) {
        const Port& target = targets[index];
        if (!*target.valid || !*target.ready) return;
        uint64_t stamp = 0;
        for (int bit = 0; bit < 64; bit++)
            stamp |= uint64_t(target.payload[(body + bit) / 8] >> (body + bit) % 8 & 1) << bit;
        uint32_t source = stamp >> 32 & 0xFFF;
        int64_t number = stamp >> 44;
        if (source >= sources.size() || size_t(number) >= sent[source].size())
            throw Fault{"a flit came from nowhere"};
        const auto& wanted = packets[sent[source][number]].targets;
        if (std::find(wanted.begin(), wanted.end(), index) == wanted.end())
            throw Fault{"a flit of source " + std::to_string(source) + " came to a wrong target"};
        int64_t& before = last[source * targets.size() + index];
        if (number <= before)
            throw Fault{"flit " + std::to_string(number) + " of source " + std::to_string(source) +
                        " came after flit " + std::to_string(before)};
        before = number;
        under_way--;
        uint64_t latency = cycle - uint32_t(stamp);
        if (!measuring) return;
        arrived++, latency_sum += latency, sources[source].delivered++;
        latency_max = std::max(latency_max, latency);
    }

    void step(bool more) {
        for (uint32_t i = 0; i < sources.size(); i++) offer(i, more);
        for (Port& target : targets)
            *target.ready = target.rate >= 256 || (random.next() & 255) < target.rate;
        taken.resize(sources.size());
        for (uint32_t i = 0; i < sources.size(); i++) taken[i] = *sources[i].ready;
        for (uint32_t i = 0; i < targets.size(); i++) take(i);
        double begin = processor_seconds();
        model->cycle(cycle, false);
        seconds += processor_seconds() - begin - clock_seconds;
    }

    std::unique_ptr<Library> library;
    std::unique_ptr<mxlet::Model> model;
    Random random{1};
    uint64_t warm = 0, measured = 0, cycle = 0, bits = 0, body = 0;
    bool measuring = false;
    std::vector<Packet> packets;
    std::vector<Port> sources, targets;
    std::vector<std::vector<uint32_t>> sent;    // packets of each source, by number
    std::vector<int64_t> last;                  // number that came last, by source and target
    std::vector<uint32_t> before, counted;
    std::vector<uint8_t> taken;
    uint64_t under_way = 0, arrived = 0, latency_sum = 0, latency_max = 0;
    double seconds = 0, clock_seconds = 0;
};
}  // namespace

int main() {
    try {
        Traffic traffic;
        traffic.run();
        traffic.print();
    } catch (const Fault& fault) {
        std::fprintf(stderr, "%s\n", fault.what.c_str());
        return 1;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
