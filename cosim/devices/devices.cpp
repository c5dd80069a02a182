// The kinds of device that a die's description can name.
#include "engine.hpp"
#include "fabric_switch.hpp"
#include "hbm_pseudo_device.hpp"
#include "host.hpp"
#include "probe.hpp"

namespace mxlet {

std::unique_ptr<Device> make_device(const std::string& kind, const Context& context) {
    if (kind == "host_memory") return std::make_unique<HostMemory>(context);
    if (kind == "register_master") return std::make_unique<RegisterMaster>(context);
    if (kind == "hbm_pseudo") return std::make_unique<HbmPseudoDevice>(context);
    if (kind == "mac") return std::make_unique<Mac>(context);
    if (kind == "switch") return std::make_unique<Switch>(context);
    if (kind == "probe") return std::make_unique<Probe>(context);
    throw std::invalid_argument("Device " + context.name + " has the unknown kind " + kind);
}

}  // namespace mxlet
