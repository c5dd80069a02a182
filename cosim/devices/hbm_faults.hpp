// What an HBM pseudo-channel keeps beside its data, and what is wrong with it.
#pragma once
#include <sys/mman.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <unordered_map>

#include "hbm_code.hpp"

namespace mxlet::pseudo {

// The 16 bits beside each access of 32 bytes, and faults. Kept is the difference between these bits
// and the check bits of the data, in sparse memory: zero is good whatever the data are.
//
// A flipped bit stays until the access is written; a stuck bit and a failed row (which reads as ones)
// until `heal`. Bits 0 to 255 are data, 256 to 271 beside them.
class HbmFaults {
  public:
    static constexpr uint32_t BITS = 272, WORDS = 9, BYTES = 32;

    explicit HbmFaults(uint64_t accesses) : accesses_(accesses) {
        void* place = mmap(nullptr, 2 * accesses, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (place == MAP_FAILED) throw std::bad_alloc();
        beside_ = static_cast<uint16_t*>(place);
    }
    ~HbmFaults() { munmap(beside_, 2 * accesses_); }
    HbmFaults(const HbmFaults&) = delete;

    void flip(uint64_t access, uint32_t bit) { of(access, bit).flipped[bit / 32] ^= 1u << bit % 32; }
    void stick(uint64_t access, uint32_t bit, bool one) {
        Fault& fault = of(access, bit);
        fault.stuck[bit / 32] |= 1u << bit % 32;
        fault.ones[bit / 32] = (fault.ones[bit / 32] & ~(1u << bit % 32)) | uint32_t(one) << bit % 32;
    }
    void fail_row(uint32_t bank, uint32_t row) { rows_.insert(uint64_t(row) << 4 | bank); }
    void heal() {
        faults_.clear();
        rows_.clear();
    }

    void write(uint64_t access, const uint32_t* words) {
        uint8_t data[BYTES];
        std::memcpy(data, words, BYTES);
        beside_[access] = uint16_t(words[8]) ^ HbmCode::encode(data);
        if (faults_.empty()) return;
        auto found = faults_.find(access);
        if (found != faults_.end()) found->second.flipped.fill(0);
    }
    void read(uint64_t access, uint32_t bank, uint32_t row, const uint8_t* data,
              uint32_t* words) const {
        std::memcpy(words, data, BYTES);
        words[8] = beside_[access] ^ HbmCode::encode(data);
        if (!rows_.empty() && rows_.count(uint64_t(row) << 4 | bank)) {
            std::memset(words, 0xFF, BYTES);
            words[8] = 0xFFFF;
        }
        if (faults_.empty()) return;
        auto found = faults_.find(access);
        if (found == faults_.end()) return;
        const Fault& fault = found->second;
        for (uint32_t n = 0; n < WORDS; n++)
            words[n] = ((words[n] ^ fault.flipped[n]) & ~fault.stuck[n]) | (fault.ones[n] & fault.stuck[n]);
    }

  private:
    struct Fault {
        std::array<uint32_t, WORDS> flipped{}, stuck{}, ones{};
    };
    Fault& of(uint64_t access, uint32_t bit) {
        if (access >= accesses_ || bit >= BITS)
            throw std::invalid_argument("A fault must be in bit 0 to 271 of one of " +
                                        std::to_string(accesses_) + " accesses, not bit " +
                                        std::to_string(bit) + " of " + std::to_string(access));
        return faults_[access];
    }

    uint64_t accesses_;
    uint16_t* beside_;
    std::unordered_map<uint64_t, Fault> faults_;
    std::set<uint64_t> rows_;
};

}  // namespace mxlet::pseudo
