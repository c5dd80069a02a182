// Runs a Verilated HbmController against the device model and a plain model of memory.
// Arguments: name=value for the timing, rows, count, seed, request and ready (per cent of clocks in
// which the streams may move), quiet (clocks before the first request), gap (clocks from each
// answer to the next request, if not 0: one request at a time), flight (most requests under way),
// burst (lines that a copy reads or writes at a time), victim (bit 0: the starved access is a
// write, 1: the others are), pattern=NAME. Prints name=value lines; status 1 on an error.
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
    uint64_t accepted;
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
    uint64_t sent = 0, answered = 0, first = 0, last = 0, now = 0;
    uint64_t latency = 0, worst = 0, asked = 0;  // of reads, from acceptance to answer
    uint64_t first_latencies[4] = {}, victim_from = 0, victim_to = 0;
    uint32_t open_row[HbmChannel::BANKS] = {};

    uint64_t option(const char* name) const { return std::stoull(options.at(name)); }

    Request next(const std::string& pattern, uint64_t number) {
        Request r;
        const uint64_t bytes = memory.size(), lines = bytes / 64;
        uint64_t line = number % lines;
        if (pattern == "write") r.write = true;
        if (pattern == "random") line = random() % lines;
        if (pattern == "streams") line = (number % 8 * (lines / 8) + number / 8 + 77 * (number % 8)) % lines;
        if (pattern == "copy") {  // `burst` lines read, as many written elsewhere
            const uint64_t burst = option("burst");
            r.write = number / burst % 2;
            line = (number / burst / 2 * burst + number % burst + (r.write ? lines / 2 : 0)) % lines;
        }
        if (pattern == "strided") line = number * 4 % lines + number * 4 / lines % 4;
        if (pattern == "update") {  // reads and writes of random lines
            line = random() % lines;
            r.write = random() % 2;
        }
        if (pattern == "mixed") {  // few rows and banks, so that everything meets
            r.write = random() % 2;
            line = (random() % 2 ? random() % 4 : random() % lines) / 2;
            if (random() % 16 == 0) line = lines + random() % lines;
            if (random() % 64 == 0) line = (1ull << 33) + random() % lines;
        }
        if (pattern == "bank") {  // of one bank: the way back of the address map
            const uint64_t row = random() % (lines / 512);
            line = HbmChannel::line_of(0, row, random() % 32);
        }
        if (pattern == "echo") {  // a line is written, then read
            line = number / 2;
            r.write = number % 2 == 0;
        }
        if (pattern == "conflict") line = HbmChannel::line_of(0, number > 0, number);
        if (pattern == "starve") {  // bank 0: one access to row 1 among accesses to row 0
            const bool victim = number == 300;
            line = HbmChannel::line_of(0, victim, number % 32);
            r.write = victim ? option("victim") & 1 : option("victim") >> 1;
        }
        r.address = line * 64 + (uint64_t(random() % 256) << 40);
        r.tag = random() % 256;
        r.mask = pattern == "mixed" && random() % 2 ? (uint64_t(random()) << 32 | random()) : ~0ull;
        for (auto& byte : r.data) byte = random();
        return r;
    }

    void accept(const Request& r) {  // what the memory is to do, in order of acceptance
        const uint64_t offset = r.address & ((1ull << 40) - 1);
        Answer answer{r.tag, r.write, offset >= model.size(), now, {}};
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
        if (answered < 4) first_latencies[answered] = now - a.accepted;
        if (!a.write) latency += now - a.accepted, worst = std::max(worst, now - a.accepted), asked++;
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
        uint64_t idle = 0, stalled = 0, rested = 0, settled = 0, next_at = quiet, depth = 0;
        uint64_t window = 0, window_refreshes = 0;
        Request request;
        // Until all is answered, and the last queued writes are in memory.
        while (answered < count || settled < 32) {
            now++;
            settled = answered < count || dut.awake ? 0 : settled + 1;
            if (answered == count && now > last + 8 * timing.refi)
                return std::puts("error=the controller does not come to rest"), 1;
            // Before the edge: the device sees the outputs and drives what this edge samples.
            dut.clk = 0;
            if (!request_valid && sent < count && expected.size() < option("flight") && now > next_at && random() % 100 < option("request")) {
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
            HbmRowCommand row{bool(dut.row_command & 1), HbmRowOp(dut.row_command >> 1 & 7),
                              uint32_t(dut.row_command >> 4 & 15), uint32_t(dut.row_command >> 8)};
            HbmColumnCommand column{bool(dut.column_command & 1), bool(dut.column_command >> 1 & 1),
                                    uint32_t(dut.column_command >> 2 & 15),
                                    uint32_t(dut.column_command >> 6)};
            for (auto& word : dut.read_data.m_storage) word = random();
            if (column.valid) {  // from the first request to the end of the last data
                window = now + timing.bl - first;
                window_refreshes = channel.counters().bank_refreshes;
                if (column.bank == 0 && open_row[0] == 1) victim_to = now;
            }
            if (row.valid && row.op == HbmRowOp::ACTIVATE) open_row[row.bank] = row.row;
            channel.cycle(row, column, dut.write_data.data(), dut.write_mask, dut.read_data.data());
            dut.eval();
            rested += !dut.awake;
            const bool moves_in = request_valid && request_ready;
            const bool moves_out = response_valid && response_ready;
            if (moves_in) {
                if (sent == 300) victim_from = now;
                accept(request), sent++;
                if (option("gap")) next_at = ~0ull;
            }
            depth = std::max(depth, uint64_t(expected.size()));
            if (moves_out) {
                if (!check()) return 1;
                answered++;
                last = now;
                if (option("gap")) next_at = now + option("gap");
            }
            idle = moves_in || moves_out || expected.empty() ? 0 : idle + 1;
            if (idle > 20000) return std::puts("error=nothing moves"), 1;
            dut.clk = 1;
            dut.eval();
            if (moves_in) request_valid = 0;
            stalled += request_valid;
        }
        if (memory != model) return std::puts("error=memory differs from the model"), 1;
        const auto& c = channel.counters();
        auto print = [](const char* name, uint64_t value) {
            std::printf("%s=%llu\n", name, (unsigned long long)value);
        };
        print("clocks", now), print("first_to_last", last - first), print("window", window);
        print("activates", c.activates), print("refreshes", c.bank_refreshes);
        print("all_bank_refreshes", c.refreshes), print("window_refreshes", window_refreshes);
        print("reads", c.reads), print("writes", c.writes), print("stalled", stalled);
        print("rested", rested), print("depth", depth), print("worst_read", worst);
        print("victim", victim_to - victim_from);
        for (int n = 0; n < 4; n++) print(("latency" + std::to_string(n)).c_str(), first_latencies[n]);
        print("mean_read", asked ? latency / asked : 0);
        const char* names[] = {"data", "turnaround", "group", "refresh", "row"};
        uint64_t busy = 0;
        for (int n = 0; n < 5; n++) {
            print((std::string("at_") + names[n]).c_str(), dut.counters[n]);
            busy += dut.counters[n];
        }
        print("at_idle", now - busy);
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
