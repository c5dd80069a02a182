// Arguments "name=value" of the program that loads an HBM pseudo-channel.
#pragma once
#include <map>
#include <stdexcept>
#include <string>

#include "hbm_pseudo.hpp"

namespace mxlet::pseudo {

// Of numbers, by name:
//   rows, count (requests), seed; request of `of`, ready of 100: clocks in which the streams may move;
//   open: requests come at that rate, whether or not the one before was taken, and latency counts
//   from there; queued: lines of each direction accepted but not yet moved on the pins at most, 0: any
//   number (requests for whole lines only);
//   quiet: clocks before the first request; warm: clocks of the pins before the window that is
//   measured; gap: clocks from each answer to the next request, if not
//   0 (one at a time); burst: lines that a copy reads or writes at a time; victim: bit 0: the starved
//   access is a write, 1: the others are; agents, under_way, far: see Traffic; stride [line];
//   skip: leave out clocks as the channel allows; noise: other data on the pins while none are due;
//   fill: memory is not zero; flips, stuck, doubled: so many accesses have a flipped bit, a stuck
//   bit, two flipped bits; failed: rows of bank 5 that fail;
//   clk_period, hbm_period, phase: times of the two clocks, in one unit.
#define MXLET_OPTIONS(X) X(rows) X(count) X(seed) X(request) X(of) X(open) X(queued) X(ready) X(quiet) X(warm) X(gap) X(burst) \
    X(victim) X(agents) X(under_way) X(far) X(stride) X(skip) X(noise) X(fill) X(flips) X(stuck) \
    X(doubled) X(failed) X(clk_period) X(hbm_period) X(phase)

struct Options {
#define MXLET_FIELD(name) uint64_t name;
    MXLET_OPTIONS(MXLET_FIELD)
#undef MXLET_FIELD
    std::string pattern;
    HbmTiming timing;

    Options(int argc, char** argv) {
        std::map<std::string, std::string> values;
        for (int n = 1; n < argc; n++) {
            const std::string argument = argv[n];
            const size_t equals = argument.find('=');
            if (equals != std::string::npos)
                values[argument.substr(0, equals)] = argument.substr(equals + 1);
        }
        auto get = [&](const char* name) { return std::stoull(values.at(name)); };
        auto part = [&](const char* name) { return uint32_t(get(name)); };
#define MXLET_READ(name) name = get(#name);
        MXLET_OPTIONS(MXLET_READ)
#undef MXLET_READ
        pattern = values.at("pattern");
        timing = {part("bl"),   part("cl"),   part("cwl"),  part("rcdrd"), part("rcdwr"), part("rp"),
                  part("ras"),  part("rc"),   part("wr"),   part("rtp"),   part("ccds"),  part("ccdl"),
                  part("rrds"), part("rrdl"), part("faw"),  part("wtrs"),  part("wtrl"),  part("rtw"),
                  part("rfc"),  part("rfcpb"), part("rrefd"), part("refi")};
    }
};

}  // namespace mxlet::pseudo
