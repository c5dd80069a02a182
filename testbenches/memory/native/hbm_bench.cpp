// Runs a Verilated HbmController against the device model and a plain model of memory.
// Arguments: name=value for the timing, rows, count, seed, request and ready (per cent of clocks in
// which the streams may move), and pattern=NAME. Prints name=value lines; status 1 on an error.
#include <cstdio>
#include <deque>
#include <random>

#include "Vdut.h"
#include "hbm.hpp"
#include "hbm_timing.hpp"
#include "layout.hpp"  // bit positions of the payloads, written by the test

using namespace mxlet;

template <typename Words> uint64_t get(const Words& words, int at, int bits) {
    uint64_t value = 0;
    for (int n = 0; n < bits; n++)
        value |= uint64_t(words[(at + n) / 32] >> ((at + n) % 32) & 1) << n;
    return value;
}

template <typename Words> void put(Words& words, int at, int bits, uint64_t value) {
    for (int n = 0; n < bits; n++) {
        const uint32_t one = 1u << ((at + n) % 32);
        words[(at + n) / 32] = (words[(at + n) / 32] & ~one) | ((value >> n & 1) ? one : 0);
    }
}

struct Request {
    uint64_t address = 0, mask = 0;
    uint32_t tag = 0;
    bool write = false;
    uint8_t data[64];
};

struct Answer {
    uint32_t tag;
    bool write, outside;
    uint8_t data[64];
};

struct Bench {
    std::map<std::string, std::string> options;
    std::vector<uint8_t> memory, model;
    std::mt19937 random;
    Vdut dut;
    // Verilator writes "__" of a port's name as "___05F".
    decltype(dut.request___05Fpayload)& request_payload = dut.request___05Fpayload;
    decltype(dut.response___05Fpayload)& response_payload = dut.response___05Fpayload;
    CData &request_valid = dut.request___05Fvalid, &request_ready = dut.request___05Fready;
    CData &response_valid = dut.response___05Fvalid, &response_ready = dut.response___05Fready;
    std::deque<Answer> expected;
    uint64_t sent = 0, answered = 0, first = 0, last = 0, lines = 0;

    uint64_t option(const char* name) const { return std::stoull(options.at(name)); }

    Request next(const std::string& pattern, uint64_t number) {
        Request r;
        const uint64_t bytes = memory.size(), lines = bytes / 64;
        uint64_t line = number % lines;
        if (pattern == "write") r.write = true;
        if (pattern == "random") line = random() % lines;
        if (pattern == "streams") line = (number % 8 * (lines / 8) + number / 8 + 77 * (number % 8)) % lines;
        if (pattern == "copy") {  // 64 lines read, 64 written elsewhere
            r.write = number / 64 % 2;
            line = (number / 128 * 64 + number % 64 + (r.write ? lines / 2 : 0)) % lines;
        }
        if (pattern == "mixed") {  // few rows and banks, so that everything meets
            r.write = random() % 2;
            line = (random() % 2 ? random() % 4 : random() % lines) / 2;
            if (random() % 16 == 0) line = lines + random() % lines;
            if (random() % 64 == 0) line = (1ull << 33) + random() % lines;
        }
        if (pattern == "bank") line = 512 * (random() % (lines / 512)) + 4 * (random() % 32);
        r.address = line * 64 + (uint64_t(random() % 256) << 40);
        r.tag = random() % 256;
        r.mask = pattern == "mixed" && random() % 2 ? (uint64_t(random()) << 32 | random()) : ~0ull;
        for (auto& byte : r.data) byte = random();
        return r;
    }

    void accept(const Request& r) {  // what the memory is to do, in order of acceptance
        const uint64_t offset = r.address & ((1ull << 40) - 1);
        Answer answer{r.tag, r.write, offset >= model.size(), {}};
        if (!answer.outside && r.write) {
            for (int n = 0; n < 64; n++)
                if (r.mask >> n & 1) model[offset + n] = r.data[n];
        } else if (!answer.outside) {
            std::memcpy(answer.data, &model[offset], 64);
        }
        expected.push_back(answer);
    }

    bool check() {
        const auto& words = response_payload;
        if (expected.empty()) return std::puts("error=an answer that nobody asked for"), false;
        const Answer a = expected.front();
        expected.pop_front();
        bool good = get(words, RESPONSE_TAG, 8) == a.tag && get(words, RESPONSE_WRITE, 1) == a.write &&
                    get(words, RESPONSE_ERROR, 2) == a.outside;
        for (int n = 0; n < 64 && good && !a.write && !a.outside; n++)
            good = get(words, RESPONSE_DATA + 8 * n, 8) == a.data[n];
        if (!good) std::printf("error=answer %llu is wrong\n", (unsigned long long)answered);
        return good;
    }

    void clock() {
        dut.clk = 0;
        dut.eval();
        dut.clk = 1;
        dut.eval();
    }

    int run(const HbmTiming& timing) {
        memory.resize(option("rows") * HbmChannel::ROW);
        random.seed(option("seed"));
        for (auto& byte : memory) byte = random();
        model = memory;
        HbmChannel channel(memory.data(), memory.size(), timing);
        const uint64_t count = option("count"), quiet = option("quiet");
        const std::string pattern = options.at("pattern");
        dut.rst = 1;
        request_valid = response_ready = 0;
        clock();
        clock();
        dut.rst = 0;
        uint64_t now = 0, idle = 0, stalled = 0, rested = 0;
        Request request;
        while (answered < count) {
            now++;
            // Before the edge: the device sees the outputs and drives what this edge samples.
            dut.clk = 0;
            if (!request_valid && sent < count && now > quiet && random() % 100 < option("request")) {
                request = next(pattern, sent);
                request_valid = 1;
                put(request_payload, REQUEST_ADDRESS, 48, request.address);
                put(request_payload, REQUEST_TAG, 8, request.tag);
                put(request_payload, REQUEST_WRITE, 1, request.write);
                put(request_payload, REQUEST_MASK, 64, request.mask);
                for (int n = 0; n < 64; n++)
                    put(request_payload, REQUEST_DATA + 8 * n, 8, request.data[n]);
                if (!first) first = now;
            }
            response_ready = random() % 100 < option("ready");
            HbmRowCommand row{bool(dut.row_command & 1), HbmRowOp(dut.row_command >> 1 & 3),
                              uint32_t(dut.row_command >> 3 & 15), uint32_t(dut.row_command >> 7)};
            HbmColumnCommand column{bool(dut.column_command & 1), bool(dut.column_command >> 1 & 1),
                                    uint32_t(dut.column_command >> 2 & 15),
                                    uint32_t(dut.column_command >> 6)};
            for (auto& word : dut.read_data.m_storage) word = random();
            channel.cycle(row, column, dut.write_data.data(), dut.write_mask, dut.read_data.data());
            dut.eval();
            rested += !dut.awake;
            const bool moves_in = request_valid && request_ready;
            const bool moves_out = response_valid && response_ready;
            if (moves_in) accept(request), sent++;
            if (moves_out) {
                if (!check()) return 1;
                answered++;
                last = now;
            }
            idle = moves_in || moves_out || now <= quiet ? 0 : idle + 1;
            if (idle > 20000) return std::puts("error=nothing moves"), 1;
            dut.clk = 1;
            dut.eval();
            if (moves_in) request_valid = 0;
            stalled += request_valid;
        }
        if (memory != model) return std::puts("error=memory differs from the model"), 1;
        const auto& c = channel.counters();
        std::printf("clocks=%llu\nfirst_to_last=%llu\nactivates=%llu\nrefreshes=%llu\nreads=%llu\n"
                    "writes=%llu\nstalled=%llu\nrested=%llu\n", (unsigned long long)now,
                    (unsigned long long)(last - first), (unsigned long long)c.activates,
                    (unsigned long long)c.refreshes, (unsigned long long)c.reads,
                    (unsigned long long)c.writes, (unsigned long long)stalled,
                    (unsigned long long)rested);
        return 0;
    }
};

int main(int argc, char** argv) {
    Bench bench;
    for (int n = 1; n < argc; n++) {
        const std::string argument = argv[n];
        bench.options[argument.substr(0, argument.find('='))] = argument.substr(argument.find('=') + 1);
    }
    try {
        return bench.run(timing_from(argc, argv));
    } catch (const HbmViolation& violation) {
        std::printf("error=%s\n", violation.what());
        return 1;
    }
}
