// Judges a script of commands to an HBM pseudo-channel. Arguments: the timing as name=value, in the
// order of HbmTiming; commands on standard input, one a line: "clock op bank row-or-column", op one of
// A P Q F B (row) R W (column). Prints the rule that was broken and when, or "legal".
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "hbm_pseudo.hpp"

using namespace mxlet::pseudo;

int main(int argc, char** argv) {
    std::map<std::string, uint32_t> t;
    for (int n = 1; n < argc; n++) {
        const std::string argument = argv[n];
        const size_t equals = argument.find('=');
        t[argument.substr(0, equals)] = std::atoi(argument.c_str() + equals + 1);
    }
    const HbmTiming timing{t.at("bl"),   t.at("cl"),   t.at("cwl"),  t.at("rcdrd"), t.at("rcdwr"),
                           t.at("rp"),   t.at("ras"),  t.at("rc"),   t.at("wr"),    t.at("rtp"),
                           t.at("ccds"), t.at("ccdl"), t.at("rrds"), t.at("rrdl"),  t.at("faw"),
                           t.at("wtrs"), t.at("wtrl"), t.at("rtw"),  t.at("rfc"),   t.at("rfcpb"),
                           t.at("rrefd"), t.at("refi")};
    std::vector<uint8_t> memory(8 * HbmPseudo::ROW);
    HbmPseudo device(memory.data(), memory.size(), timing);
    std::map<uint64_t, std::pair<HbmRowCommand, HbmColumnCommand>> script;
    unsigned long long clock, last = 0;
    char op;
    unsigned bank, place;
    while (std::scanf("%llu %c %u %u", &clock, &op, &bank, &place) == 4) {
        auto& [row, column] = script[clock];
        const std::string ops = "APQFB";
        if (ops.find(op) != std::string::npos)
            row = {true, HbmRowOp(ops.find(op)), bank, place};
        else
            column = {true, op == 'W', bank, place};
        last = clock;
    }
    uint32_t in[HbmPseudo::WORDS] = {}, out[HbmPseudo::WORDS];
    try {
        for (uint64_t now = 1; now <= last; now++) {
            auto at = script.find(now);
            HbmRowCommand row;
            HbmColumnCommand column;
            if (at != script.end()) std::tie(row, column) = at->second;
            device.cycle(row, column, in, out);
        }
    } catch (const HbmViolation& violation) {
        std::printf("%s %llu\n", violation.rule.c_str(), (unsigned long long)violation.cycle);
        return 0;
    }
    std::printf("legal\n");
}
