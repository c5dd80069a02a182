// Runs a Verilated HbmChannel, with its two clocks, against the device model and a plain model of
// memory. Arguments name=value: the timing, and the options of `Options`. Prints name=value lines;
// status 1 on an error.
#include <x86intrin.h>

#include <ctime>

#include "Vdut.h"
#include "traffic.hpp"

using namespace mxlet::pseudo;

// The two clocks and the pins. Registers of the model load on every change of their clock.
struct Bench {
    Options options;
    Vdut dut;
    std::vector<uint8_t> memory;
    HbmPseudo device;
    Traffic traffic;
    uint64_t clk_at = 0, hbm_at, left_out = 0, clks = 0, hbms = 0, edges = 0;
    uint64_t active = 0, spent = 0, hash = 0, first_command = 0, last_data = 0;
    uint64_t open_row = 0, refreshes_from = 0, refreshes_to = 0, accesses_from = 0, accesses_to = 0;

    explicit Bench(const Options& options)
        : options(options), memory(options.rows * HbmPseudo::ROW),
          device(memory.data(), memory.size(), options.timing), traffic(options, memory),
          hbm_at(options.phase) {
        traffic.break_things(device.faults(), memory.size() / HbmPseudo::ACCESS);
    }

    void eval() {
        const uint64_t start = __rdtsc();
        dut.eval();
        spent += __rdtsc() - start;
    }

    void hbm() {
        hbms++;
        const bool skips = options.skip && !dut.hbm_awake && left_out < dut.hbm_rest;
        active += dut.hbm_awake;
        if (skips) {
            left_out++;
            device.skip(1);
            return;
        }
        HbmRowCommand row{bool(dut.row_command & 1), HbmRowOp(dut.row_command >> 1 & 7),
                          uint32_t(dut.row_command >> 4 & 15), uint32_t(dut.row_command >> 8)};
        HbmColumnCommand column{bool(dut.column_command & 1), bool(dut.column_command >> 1 & 1),
                                uint32_t(dut.column_command >> 2 & 15),
                                uint32_t(dut.column_command >> 6)};
        if (options.noise)
            for (auto& word : dut.read_data.m_storage) word = traffic.random();
        dut.read_data.m_storage[8] &= 0xFFFF;
        device.cycle(row, column, dut.write_data.data(), dut.read_data.data());
        if (row.valid && row.op == HbmRowOp::ACTIVATE && row.bank == 0) open_row = row.row;
        if (column.valid) {
            traffic.commanded(column.write);
            if (column.bank == 0 && open_row == 1) traffic.served(hbms);
            if (!first_command && hbms >= options.warm) {
                first_command = hbms;
                refreshes_from = all_refreshes(), accesses_from = accesses() - 1;
            }
            last_data = hbms;
            refreshes_to = all_refreshes(), accesses_to = accesses();
            hash = hash * 31 + hbms * 1024 + column.bank * 64 + column.column * 2 + column.write;
        }
        dut.hbm_skipped = left_out;
        left_out = 0;
        dut.hbm_clk ^= 1;
        edges++;
    }
    uint64_t accesses() const { return device.counters().reads + device.counters().writes; }
    uint64_t all_refreshes() const {
        return device.counters().bank_refreshes + 16 * device.counters().refreshes;
    }

    // False at the first wrong answer.
    bool clk() {
        clks++;
        auto& answer = dut.response___05Fpayload;
        if (!dut.request___05Fvalid && traffic.next(clks)) {
            dut.request___05Fvalid = 1;
            traffic.request.to(dut.request___05Fpayload);
        }
        dut.response___05Fready = traffic.random() % 100 < options.ready;
        const bool moves_in = dut.request___05Fvalid && dut.request___05Fready;
        const bool moves_out = dut.response___05Fvalid && dut.response___05Fready;
        if (moves_in) traffic.accept(clks, hbms);
        if (moves_out && !traffic.check(answer, clks, hbms)) return false;
        sent = moves_in;
        if (options.skip && !dut.awake && !dut.request___05Fvalid) return true;
        dut.clk ^= 1;
        edges++;
        return true;
    }
    bool sent = false;

    int run() {
        dut.rst = 1;
        dut.hbm_clk = dut.clk = dut.request___05Fvalid = dut.response___05Fready = 0;
        eval();
        uint64_t settled = 0, still = 0, rest = 0;
        const uint64_t clk_period = options.clk_period, hbm_period = options.hbm_period;
        const std::clock_t start = std::clock();
        const uint64_t tsc = __rdtsc();
        while (settled < 24) {
            const uint64_t at = std::min(clk_at, hbm_at);
            if (clks >= 8) dut.rst = 0;
            const bool is_clk = at == clk_at;
            if (at == hbm_at) {
                hbm_at += hbm_period;
                hbm();
            }
            if (is_clk) {
                clk_at += clk_period;
                if (dut.rst) dut.clk ^= 1, clks++;
                else if (!clk()) return 1;
            }
            eval();
            if (is_clk) {
                if (sent) dut.request___05Fvalid = sent = 0;
                // A model whose clock is left out cannot say that its rest has ended, before its next
                // edge; one whose clock runs does, and both are to end at the same clock.
                const bool due = options.skip && left_out >= dut.hbm_rest;
                settled = traffic.done() && !dut.awake && !dut.hbm_awake && !due ? settled + 1 : 0;
                rest = traffic.done() ? rest + 1 : 0;
                if (rest > 40 * options.timing.refi)
                    return std::puts("error=the clocks do not come to rest"), 1;
                still = traffic.moved(clks) ? 0 : still + 1;
                if (still > 60000 + options.quiet) return std::puts("error=nothing moves"), 1;
            }
        }
        const double seconds = double(std::clock() - start) / CLOCKS_PER_SEC;
        const double nanoseconds = seconds * 1e9 * double(spent) / double(__rdtsc() - tsc);
        if (!traffic.same(memory)) return std::puts("error=memory differs from the model"), 1;
        const auto& c = device.counters();
        auto print = [](const char* name, uint64_t value) {
            std::printf("%s=%llu\n", name, (unsigned long long)value);
        };
        print("clks", clks), print("hbms", hbms), print("active", active), print("hash", hash);
        print("window", last_data + options.timing.bl - first_command);
        print("activates", c.activates), print("bank_refreshes", c.bank_refreshes);
        print("precharges", c.precharges), print("refreshes", c.refreshes);
        print("window_refreshes", refreshes_to - refreshes_from);
        print("window_accesses", accesses_to - accesses_from);
        print("reads", c.reads), print("writes", c.writes), print("edges", edges);
        print("ns_per_active_clock", active ? uint64_t(nanoseconds / double(active)) : 0);
        traffic.report(print);
        return 0;
    }
};

int main(int argc, char** argv) {
    try {
        return std::make_unique<Bench>(Options(argc, argv))->run();
    } catch (const HbmViolation& violation) {
        std::printf("error=%s\n", violation.what());
        return 1;
    }
}
