// Timing of the HBM device from arguments "name=value".
#pragma once
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>

#include "hbm.hpp"

inline mxlet::HbmTiming timing_from(int argc, char** argv) {
    std::map<std::string, uint32_t> values;
    for (int n = 1; n < argc; n++) {
        const std::string argument = argv[n];
        const size_t equals = argument.find('=');
        if (equals != std::string::npos)
            values[argument.substr(0, equals)] = std::atoi(argument.c_str() + equals + 1);
    }
    auto get = [&](const char* name) { return values.at(name); };
    return {get("bl"),   get("cl"),   get("cwl"),  get("rcdrd"), get("rcdwr"), get("rp"),  get("ras"),
            get("rc"),   get("wr"),   get("rtp"),  get("ccds"),  get("ccdl"),  get("rrds"), get("rrdl"),
            get("faw"),  get("wtrs"), get("wtrl"), get("rtw"),   get("rfc"),   get("refi")};
}
