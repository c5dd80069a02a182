// Judges a script of HBM commands. Arguments: timing values as name=value; commands on standard
// input, one a line: "clock op bank row-or-column", op one of A P Q F (row) R W (column).
// Prints the rule that was broken and when, or "legal".
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "hbm.hpp"
#include "hbm_timing.hpp"

using namespace mxlet;

int main(int argc, char** argv) {
    std::vector<uint8_t> memory(8 * HbmChannel::ROW);
    HbmChannel channel(memory.data(), memory.size(), timing_from(argc, argv));
    std::map<uint64_t, std::pair<HbmRowCommand, HbmColumnCommand>> script;
    unsigned long long clock, last = 0;
    char op;
    unsigned bank, place;
    while (std::scanf("%llu %c %u %u", &clock, &op, &bank, &place) == 4) {
        auto& [row, column] = script[clock];
        const std::string ops = "APQF";
        if (ops.find(op) != std::string::npos)
            row = {true, HbmRowOp(ops.find(op)), bank, place};
        else
            column = {true, op == 'W', bank, place};
        last = clock;
    }
    uint32_t data[16] = {}, out[16];
    try {
        for (uint64_t now = 1; now <= last; now++) {
            auto at = script.find(now);
            HbmRowCommand row;
            HbmColumnCommand column;
            if (at != script.end()) std::tie(row, column) = at->second;
            channel.cycle(row, column, data, ~0ull, out);
        }
    } catch (const HbmViolation& violation) {
        std::printf("%s %llu\n", violation.rule.c_str(), (unsigned long long)violation.cycle);
        return 0;
    }
    std::printf("legal\n");
}
