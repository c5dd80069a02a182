// Arguments "name=value" of the programs that test an HBM pseudo-channel.
#pragma once
#include <map>
#include <string>

#include "hbm_pseudo.hpp"

namespace mxlet::pseudo {

class Options {
  public:
    Options(int argc, char** argv) {
        for (int n = 1; n < argc; n++) {
            const std::string argument = argv[n];
            const size_t equals = argument.find('=');
            if (equals != std::string::npos)
                values_[argument.substr(0, equals)] = argument.substr(equals + 1);
        }
        for (const auto& [name, value] : values_)
            if (value.find_first_not_of("0123456789") == std::string::npos)
                numbers_[name] = std::stoull(value);
    }
    uint64_t operator[](const char* name) const { return numbers_.at(name); }
    std::string text(const char* name) const { return values_.at(name); }
    HbmTiming timing() const {
        auto get = [&](const char* name) { return uint32_t((*this)[name]); };
        return {get("bl"),   get("cl"),   get("cwl"),  get("rcdrd"), get("rcdwr"), get("rp"),
                get("ras"),  get("rc"),   get("wr"),   get("rtp"),   get("ccds"),  get("ccdl"),
                get("rrds"), get("rrdl"), get("faw"),  get("wtrs"),  get("wtrl"),  get("rtw"),
                get("rfc"),  get("rfcpb"), get("rrefd"), get("refi")};
    }

  private:
    std::map<std::string, std::string> values_;
    std::map<std::string, uint64_t> numbers_;
};

}  // namespace mxlet::pseudo
